package change

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestApply(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string // of the configuration as JSON, or of the error
	}{
		{[]string{`CMD ["a","b c"]`}, `"Cmd":["a","b c"]`},
		{[]string{`cmd echo "$HOME"`}, `"Cmd":["/bin/sh","-c","echo \"$HOME\""]`},
		{[]string{`CMD ["a", b]`}, `"Cmd":["/bin/sh","-c","[\"a\", b]"]`},
		{[]string{`ENTRYPOINT ["/e"]`}, `"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"/w","Entrypoint":["/e"]`},
		{[]string{`CMD x`, `ENTRYPOINT ["/e"]`}, `"Cmd":["/bin/sh","-c","x"],`},
		{[]string{`CMD []`}, `"Cmd":[]`},
		{[]string{`ENV A=1 B="two words" C='$A' D=$A$B E=x\ y`}, `"Env":["A=1","B=two words","C=$A","D=old","E=x y"]`},
		{[]string{`ENV A=1`, `ENV D=$A`}, `"Env":["A=1","D=1"]`},
		{[]string{`ENV PATH /x:$PATH and more`}, `"Env":["A=0","PATH=/x:/bin and more"]`},
		{[]string{`ENV A=${NONE:-d${PATH}} B=${PATH:+yes} C=${NONE:+no}`}, `"Env":["A=d/bin","B=yes","C="]`},
		{[]string{"ENV A=1 \\\n B=2\n# no\nUSER me"}, `"User":"me"`},
		{[]string{`EXPOSE 80 53/udp 8000-8002`}, `"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}`},
		{[]string{`LABEL a=b "c d"="e f"`, `LABEL old form here`}, `"Labels":{"a":"b","c d":"e f","old":"form here"}`},
		{[]string{`ONBUILD RUN x`}, `"OnBuild":["RUN x"]`},
		{[]string{`VOLUME /a /b`, `VOLUME ["/c d"]`}, `"Volumes":{"/a":{},"/b":{},"/c d":{}}`},
		{[]string{`WORKDIR sub/../dir`}, `"WorkingDir":"/w/dir"`},
		{[]string{`WORKDIR /x y`}, `"WorkingDir":"/x y"`},
		{[]string{`STOPSIGNAL SIGUSR1`}, `"StopSignal":"SIGUSR1"`},
		{[]string{`HEALTHCHECK NONE`}, `"Healthcheck":{"Test":["NONE"]}`},
		{[]string{`HEALTHCHECK --interval=5s --retries=3 CMD curl x`}, `"Healthcheck":{"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":3}`},
		{[]string{`HEALTHCHECK CMD ["a"]`}, `"Healthcheck":{"Test":["CMD","a"]}`},

		{[]string{`RUN x`}, `"RUN" is not a valid change command`},
		{[]string{`FROM x`}, `"FROM" is not a valid change command`},
		{[]string{`CMD`}, `needs an argument`},
		{[]string{`ENV A`}, `want KEY=VALUE`},
		{[]string{`ENV A="x`}, `not closed`},
		{[]string{`ENV A=${x`}, `not closed`},
		{[]string{`ENV A=${x:?gone}`}, `x is not set: gone`},
		{[]string{`ENV A=` + strings.Repeat("${x:-", 100)}, `nested too deeply`},
		{[]string{`EXPOSE x`}, `EXPOSE "x"`},
		{[]string{`USER a b`}, `one argument`},
		{[]string{`STOPSIGNAL SIGNONE`}, `no such signal`},
		{[]string{`ONBUILD FROM x`}, `isn't allowed`},
		{[]string{`HEALTHCHECK --interval=1 CMD x`}, `want a duration`},
		{[]string{`HEALTHCHECK x`}, `want NONE or CMD`},
		{[]string{`LABEL =x`}, `want KEY=VALUE`},
		{[]string{"CMD a\x00b"}, `NUL`},
	} {
		cfg := &container.Config{WorkingDir: "/w", Cmd: []string{"old"}}
		if strings.HasPrefix(c.want, `"Env":["A=0"`) {
			cfg.Env = []string{"A=0"}
		}
		got := ""
		if err := Apply(cfg, []string{"A=old", "PATH=/bin"}, c.lines); err != nil {
			got = err.Error()
		} else if b, err := json.Marshal(cfg); err == nil {
			got = string(b)
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q:\n got %s\nwant %s", c.lines, got, c.want)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, s := range []string{`ENV A=${B:-"c d"} C='x'`, `CMD ["a"]`, `HEALTHCHECK --retries=1 CMD x`, "LABEL a=b\\\n c=d", `EXPOSE 1-3/udp`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<12 {
			return
		}
		Apply(&container.Config{}, []string{"A=1"}, []string{s})
	})
}
