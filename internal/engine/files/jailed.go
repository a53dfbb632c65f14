package files

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/dhow-containers/dhow/internal/linux/jail"
	"github.com/dhow-containers/dhow/internal/linux/safepath"
	"github.com/dhow-containers/dhow/internal/store/layer/extract"
	"github.com/dhow-containers/dhow/internal/store/layer/tarindex"
	"github.com/dhow-containers/dhow/internal/store/layer/tree"
)

// Layer is the trade that a program with a Service whose Jail is set gives to jail.Main: it lays a tar over a container's files.
func Layer() jail.Trade { return jail.Trade{Word: word, Do: layHere} }

const word = "lay-tar-in-jail"

// task is what that process is told. Its folders are the container's root and the one that the tar goes into; its file is the tar.
type task struct {
	Path    string
	Options extract.Options
}

// jailed has a tar laid by a process that is locked in. It lives on when the engine dies: no half copy then.
func jailed(ctx context.Context, t extract.Target, data *os.File, names int64, o extract.Options) error {
	return jail.Job{
		Word: word, Task: task{t.Path, o}, Folders: []*os.File{t.Root.File(), t.Dir}, Files: []*os.File{data},
		Memory: 256<<20 + names<<10, Outlives: true,
	}.Run(ctx)
}

func layHere(w jail.Work) error {
	var k task
	if err := json.Unmarshal(w.Task, &k); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	data := w.Files[0]
	p := tarindex.NewPlain(tree.NewTable(), tarindex.Limits{Size: most})
	if _, err := io.CopyBuffer(p, io.NewSectionReader(data, 0, most), make([]byte, 256<<10)); err != nil {
		return bad(err)
	}
	table, err := p.Finish()
	if err != nil {
		return bad(err)
	}
	t := extract.Target{Root: safepath.FromFile(w.Folders[0]), Dir: w.Folders[1], Path: k.Path}
	return extract.Into(context.Background(), t, table.Tree(), data, k.Options)
}
