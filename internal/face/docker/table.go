package docker

import (
	"net/http"

	"github.com/dhow-containers/dhow/internal/base/errdef"
)

// routes is the route table: every operation of the Docker Engine API, and ours below /dhow/.
func routes() []op {
	var t []op
	for _, part := range [][]op{systemOps(), containerOps(), imageOps(), networkOps(), volumeOps(), buildOps(), pluginOps(), swarmOps()} {
		t = append(t, part...)
	}
	return t
}

func systemOps() []op {
	return []op{
		{method: "GET", path: "/_ping", do: ping, state: works},
		{method: "HEAD", path: "/_ping", do: ping, state: works},
		{method: "GET", path: "/version", do: versionOf, state: works},
		{method: "GET", path: "/info", do: info, state: works},
		{method: "GET", path: "/events", do: eventStream, stream: true, state: works},
		{method: "GET", path: "/system/df", do: diskUsage, state: works},
		{method: "POST", path: "/auth", do: login, body: jsonBody, state: works},
		{method: "GET", path: "/dhow/version", do: ownVersion, state: works, note: "dhow's own"},
		{method: "GET", path: "/dhow/containers/{id}/explain", do: containerExplain, state: works, note: "dhow's own"},
		{method: "POST", path: "/dhow/system/check", do: systemCheck, stream: true, state: works, note: "dhow's own; `repair=1` mends. Lines of JSON: findings, then the summary"},
		{method: "GET", path: "/dhow/manifests/{name...}", do: remoteManifest, state: works, note: "dhow's own; a manifest or index of a registry, `insecure=1` by http"},
		{method: "POST", path: "/dhow/manifests/{name...}", do: pushManifests, body: jsonBody, state: works, note: "dhow's own; an index of manifests of the same registry"},
		{method: "POST", path: "/dhow/system/layout", do: systemLayout, state: works, note: "dhow's own; `dir` becomes an OCI layout of the images `name`"},
		{method: "GET", path: "/dhow/images/{name...}/layers", do: imageLayers, state: works, note: "dhow's own"},
		{method: "GET", path: "/dhow/images/{name...}/files", do: imageFiles, stream: true, state: works, note: "dhow's own; lines of JSON; `layer` chooses one"},
	}
}

// createLacks is what the engine answers 501 to, naming the field.
const createLacks = "no health checks, init, links, device requests, storage options, SELinux, user namespaces, " +
	"shareable IPC, image mounts, volume subpaths and drivers; log drivers json-file and none with max-size and max-file"

func containerOps() []op {
	return []op{
		{method: "GET", path: "/containers/json", do: containerList, state: works},
		{method: "POST", path: "/containers/create", do: containerCreate, body: jsonBody, state: partly, note: createLacks},
		{method: "POST", path: "/containers/prune", do: containerPrune, state: works},
		{method: "GET", path: "/containers/{id}/json", do: containerInspect, state: works},
		{method: "POST", path: "/containers/{id}/start", do: containerStart, state: partly, note: "no checkpoint"},
		{method: "POST", path: "/containers/{id}/stop", do: containerStop, state: works},
		{method: "POST", path: "/containers/{id}/restart", do: containerRestart, state: works},
		{method: "POST", path: "/containers/{id}/kill", do: containerKill, state: works},
		{method: "POST", path: "/containers/{id}/pause", do: containerPause, state: works},
		{method: "POST", path: "/containers/{id}/unpause", do: containerUnpause, state: works},
		{method: "POST", path: "/containers/{id}/rename", do: containerRename, state: works},
		{method: "POST", path: "/containers/{id}/update", do: containerUpdate, body: jsonBody, state: partly, note: "no block I/O limits, devices, ulimits"},
		{method: "POST", path: "/containers/{id}/wait", do: containerWait, stream: true, state: works},
		{method: "POST", path: "/containers/{id}/resize", do: containerResize, state: works},
		{method: "DELETE", path: "/containers/{id}", do: containerRemove, state: partly, note: "no links"},
		{method: "GET", path: "/containers/{id}/logs", do: containerLogs, stream: true, state: works},
		{method: "GET", path: "/containers/{id}/stats", do: containerStats, stream: true, state: works},
		{method: "HEAD", path: "/containers/{id}/archive", do: containerStatPath, state: works},
		{method: "GET", path: "/containers/{id}/archive", do: containerReadPath, stream: true, state: works},
		{method: "PUT", path: "/containers/{id}/archive", do: containerWritePath, stream: true, state: partly, note: "no xz"},
		{method: "GET", path: "/containers/{id}/changes", do: containerChanges, state: works},
		{method: "GET", path: "/containers/{id}/top", do: containerTop, state: works},
		{method: "POST", path: "/containers/{id}/attach", do: containerAttach, stream: true, state: works},
		{method: "POST", path: "/containers/{id}/exec", do: execCreate, body: jsonBody, state: works},
		{method: "POST", path: "/exec/{id}/start", do: execStart, body: jsonBody, stream: true, state: works},
		{method: "POST", path: "/exec/{id}/resize", do: execResize, state: works},
		{method: "GET", path: "/exec/{id}/json", do: execInspect, state: works},
		missing("GET", "/containers/{id}/attach/ws"),
		{method: "GET", path: "/containers/{id}/export", do: containerExport, stream: true, state: works},
		missing("GET", "/containers/{id}/checkpoints"),
		missing("POST", "/containers/{id}/checkpoints"),
		missing("DELETE", "/containers/{id}/checkpoints/{checkpoint}"),
	}
}

func imageOps() []op {
	return []op{
		{method: "GET", path: "/images/json", do: imageList, state: partly, note: "no identity"},
		{method: "POST", path: "/images/create", do: imageCreate, stream: true, state: works, note: "`platform=all` is ours: every image of an index; so is `lazy=1`: be done when containers can use the image ([lazy pulls](formats/lazy.md))"},
		{method: "POST", path: "/images/prune", do: imagePrune, state: works},
		{method: "GET", path: "/images/search", do: imageSearch, state: works, note: "Docker Hub's, and of registries that have /v1/search"},
		{method: "GET", path: "/images/get", do: imageSave, stream: true, state: works, note: "an index when several platforms of an image are here; what the archive holds is uncompressed"},
		{method: "POST", path: "/images/load", do: imageLoad, stream: true, state: works, note: "docker-archive and OCI layout; gzip, bzip2, zstd, not xz; without attestations"},
		{method: "GET", path: "/images/{name...}/json", do: imageInspect, state: works},
		{method: "GET", path: "/images/{name...}/history", do: imageHistory, state: works},
		{method: "GET", path: "/images/{name...}/get", do: imageSaveOne, stream: true, state: works},
		missing("GET", "/images/{name...}/attestations"),
		{method: "POST", path: "/images/{name...}/push", do: imagePush, stream: true, state: works, note: "an index when all its images are here; `compression` (gzip, zstd) is ours"},
		{method: "POST", path: "/images/{name...}/tag", do: imageTag, state: works},
		{method: "DELETE", path: "/images/{name...}", do: imageRemove, state: works},
		{method: "POST", path: "/commit", do: commit, body: jsonBody, stream: true, state: works, note: "variables in changes are those of the container"},
		{method: "GET", path: "/distribution/{name...}/json", do: distribution, state: works},
	}
}

func networkOps() []op {
	return []op{
		{method: "GET", path: "/networks", do: networkList, state: works},
		{method: "POST", path: "/networks/create", do: networkCreate, body: jsonBody, state: partly, note: "driver bridge, with IPv4; no Ingress, ConfigOnly, ConfigFrom, other IPAM drivers"},
		{method: "POST", path: "/networks/prune", do: networkPrune, state: works},
		{method: "GET", path: "/networks/{id}", do: networkInspect, state: works},
		{method: "DELETE", path: "/networks/{id}", do: networkRemove, state: works},
		{method: "POST", path: "/networks/{id}/connect", do: networkConnect, body: jsonBody, state: partly, note: "no Links, DriverOpts, GwPriority, LinkLocalIPs; published ports stay on the network they were opened on until the next start"},
		{method: "POST", path: "/networks/{id}/disconnect", do: networkDisconnect, body: jsonBody, state: partly, note: "ports published through the network are closed, and open on another with the next start; host and none cannot be left"},
	}
}

func volumeOps() []op {
	return []op{
		{method: "GET", path: "/volumes", do: volumeList, state: works},
		{method: "POST", path: "/volumes/create", do: volumeCreate, body: jsonBody, state: partly, note: "driver local without options; no cluster volumes"},
		{method: "POST", path: "/volumes/prune", do: volumePrune, state: works},
		{method: "GET", path: "/volumes/{name}", do: volumeInspect, state: works},
		{method: "PUT", path: "/volumes/{name}", do: swarmless, state: noSwarm},
		{method: "DELETE", path: "/volumes/{name}", do: volumeRemove, state: works},
	}
}

func buildOps() []op {
	return []op{
		missing("POST", "/build"),
		missing("POST", "/build/prune"),
		missing("POST", "/build/cancel"),
		missing("POST", "/session"),
		missing("POST", "/grpc"),
	}
}

// missing is an operation that is known and not there yet.
func missing(method, path string) op {
	return op{method: method, path: path, state: notYet, do: func(*call) error {
		return errdef.New(errdef.NotImplemented, "%s %s is not implemented by this version of dhow", method, path)
	}}
}

func pluginOps() []op {
	none := func(c *call) error { return errdef.New(errdef.NotFound, "plugin %q not found", c.param("name")) }
	return []op{
		{method: "GET", path: "/plugins", do: func(c *call) error { return c.json(http.StatusOK, []string{}) }, state: stub, note: "always empty"},
		missing("GET", "/plugins/privileges"),
		missing("POST", "/plugins/pull"),
		missing("POST", "/plugins/create"),
		{method: "GET", path: "/plugins/{name...}/json", do: none, state: stub, note: "always 404"},
		{method: "DELETE", path: "/plugins/{name...}", do: none, state: stub, note: "always 404"},
		{method: "POST", path: "/plugins/{name...}/enable", do: none, state: stub, note: "always 404"},
		{method: "POST", path: "/plugins/{name...}/disable", do: none, state: stub, note: "always 404"},
		{method: "POST", path: "/plugins/{name...}/upgrade", do: none, state: stub, note: "always 404"},
		{method: "POST", path: "/plugins/{name...}/push", do: none, state: stub, note: "always 404"},
		{method: "POST", path: "/plugins/{name...}/set", do: none, state: stub, note: "always 404"},
	}
}
