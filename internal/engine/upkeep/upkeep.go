// Package upkeep owns looking after what an engine has on disk: checking and repairing it, telling what images are made of, keeping it small.
//
// It promises that looking changes nothing and that what it removes nobody uses. It must never know how a container runs.
package upkeep

import (
	"context"
	"log/slog"
	"sync"

	"github.com/moby/moby/api/types/registry"

	"github.com/dhow-containers/dhow/internal/base/errdef"
	"github.com/dhow-containers/dhow/internal/engine/api"
	"github.com/dhow-containers/dhow/internal/engine/event"
	"github.com/dhow-containers/dhow/internal/store/check"
	reg "github.com/dhow-containers/dhow/internal/store/registry"
)

// Store is what is looked after.
type Store = check.Config

// Service implements api.Upkeep. Store has no Users, Keys, Repair and Report; these are the request's.
type Service struct {
	Store Store
	Users func(image string) []string
	Bus   *event.Bus
	Limit Size // of what images take on disk; 0 is none
	Log   *slog.Logger

	checking sync.Mutex
}

// Check implements api.Upkeep.
func (s *Service) Check(ctx context.Context, repair bool, auths map[string]registry.AuthConfig, report func(api.Finding)) (api.CheckSummary, error) {
	if !s.checking.TryLock() {
		return api.CheckSummary{}, errdef.New(errdef.Conflict, "a check is under way: wait for its end")
	}
	defer s.checking.Unlock()
	c := s.Store
	c.Users, c.Repair = s.Users, repair
	c.Keys = func(domain string) *reg.Auth {
		a, ok := auths[domain]
		if !ok {
			return nil
		}
		return &reg.Auth{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	}
	c.Report = func(f check.Finding) {
		if repair {
			s.Log.Warn("store repaired", "kind", f.Kind, "object", f.Object, "path", f.Path, "problem", f.Problem, "done", f.Advice, "repaired", f.Repaired)
		}
		report(api.Finding(f))
	}
	sum, err := check.Run(ctx, c)
	return api.CheckSummary(sum), err
}

var _ api.Upkeep = (*Service)(nil)
