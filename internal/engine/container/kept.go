package container

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/dhow-containers/dhow/internal/base/atomicfile"
	"github.com/dhow-containers/dhow/internal/engine/api"
)

// recordFile lies in a run's folder: the record as it was at the start, for an engine that has lost its own.
const recordFile = "record.json"

func keepRecord(runDir string, rec *api.Container) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return atomicfile.Create(filepath.Join(runDir, recordFile), raw, 0o600)
}

// keptRecord reads it back; nil when it is not there or damaged as well.
func keptRecord(runDir string) *api.Container {
	var rec api.Container
	raw, err := os.ReadFile(filepath.Join(runDir, recordFile))
	if err != nil || json.Unmarshal(raw, &rec) != nil || rec.ID != filepath.Base(runDir) {
		return nil
	}
	return &rec
}

// loadRuns lists the containers that run and have no record any more.
func (s *Recovery) loadRuns() error {
	runs, err := names(s.RunRoot + "/containers")
	if err != nil {
		return err
	}
	for _, id := range runs {
		rec := keptRecord(s.runDir(id))
		if s.table.v.Load().byID[id] != nil || rec == nil {
			continue
		}
		if err := s.DB.Put(bucket, id, rec); err != nil {
			return err
		}
		s.Log.Warn("container's record was lost, it is the one of its last start", "container", id, "name", rec.Name)
		s.know(rec)
	}
	return nil
}
