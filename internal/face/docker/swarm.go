package docker

import "github.com/dhow-containers/dhow/internal/base/errdef"

// notManager is the sentence that clients look for when they probe for swarm mode.
const notManager = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`

// swarmless answers every operation of swarm mode, which dhow does not have.
func swarmless(*call) error { return errdef.New(errdef.Unavailable, "%s", notManager) }

func swarmOps() []op {
	var t []op
	for _, p := range [][2]string{
		{"GET", "/swarm"}, {"POST", "/swarm/init"}, {"POST", "/swarm/join"}, {"POST", "/swarm/leave"}, {"POST", "/swarm/update"},
		{"GET", "/swarm/unlockkey"}, {"POST", "/swarm/unlock"},
		{"GET", "/nodes"}, {"GET", "/nodes/{id}"}, {"DELETE", "/nodes/{id}"}, {"POST", "/nodes/{id}/update"},
		{"GET", "/services"}, {"POST", "/services/create"}, {"GET", "/services/{id}"}, {"DELETE", "/services/{id}"},
		{"POST", "/services/{id}/update"}, {"GET", "/services/{id}/logs"},
		{"GET", "/tasks"}, {"GET", "/tasks/{id}"}, {"GET", "/tasks/{id}/logs"},
		{"GET", "/secrets"}, {"POST", "/secrets/create"}, {"GET", "/secrets/{id}"}, {"DELETE", "/secrets/{id}"}, {"POST", "/secrets/{id}/update"},
		{"GET", "/configs"}, {"POST", "/configs/create"}, {"GET", "/configs/{id}"}, {"DELETE", "/configs/{id}"}, {"POST", "/configs/{id}/update"},
	} {
		t = append(t, op{method: p[0], path: p[1], do: swarmless, state: noSwarm})
	}
	return t
}
