package cli

import (
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/dhow-containers/dhow/internal/face/cli/format"
)

func cmdDiff(a *app) *cobra.Command {
	return words("diff CONTAINER", "Show what changed in a container's files: A added, C changed, D deleted", "dhow diff web", exactArgs(1),
		func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				//lint:ignore ST1005 as docker says it
				return errors.New("Container name cannot be empty")
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			var changes []container.FilesystemChange
			if err := api.Get(c.Context(), containerPath(args[0], "/changes"), nil, &changes); err != nil {
				return err
			}
			for _, ch := range changes {
				a.out(ch.Kind.String() + " " + format.Safe(ch.Path))
			}
			return nil
		})
}
