package runtime

import (
	"flag"

	"github.com/dhow-containers/dhow/internal/oci/compile"
	"github.com/dhow-containers/dhow/internal/oci/facts"
)

func (a viewer) features(fs *flag.FlagSet, argv []string) (int, error) {
	if _, err := parse(fs, argv, exactly(0)); err != nil {
		return 1, err
	}
	host, err := facts.Begin()()
	if err != nil {
		return 1, err
	}
	f := compile.Features(host)
	f.Annotations = map[string]string{
		"com.github.dhow-containers.dhow.version":    a.version.Number,
		"com.github.dhow-containers.dhow.commit":     a.version.Commit,
		"org.opencontainers.runc.checkpoint.enabled": "true", // runc's name, which engines look for
	}
	f.PotentiallyUnsafeConfigAnnotations = []string{"org.systemd.property."} // a prefix: properties of the scope (docs/cgroups.md)
	return 0, a.printJSON(f)
}
