package runtime

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// logger writes what engines read: a line for every event, JSON or key=value, with level, msg and time. Without --log only errors and
// warnings (and with --debug all) go to standard error, in plain words.
type logger struct {
	stderr    io.Writer
	out       io.Writer // the file, where there is one
	file      string
	format    string
	debugging bool
}

// open makes the file: an engine opens it whether or not something was written.
func (l *logger) open() error {
	if l.file == "" {
		return nil
	}
	f, err := os.OpenFile(l.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	l.out = f
	return nil
}

// fail tells an error on both ways.
func (l *logger) fail(err error) {
	msg := strings.TrimSpace(err.Error())
	fmt.Fprintln(l.stderr, "dhow-runtime: "+line(msg))
	if l.out != nil {
		l.write("error", msg)
	}
}

func (l *logger) warn(format string, args ...any) {
	l.tell("warning", fmt.Sprintf(format, args...))
}

// warning is warn for a text that is ready.
func (l *logger) warning(text string) { l.tell("warning", text) }

func (l *logger) debug(format string, args ...any) {
	if l.debugging {
		l.tell("debug", fmt.Sprintf(format, args...))
	}
}

func (l *logger) tell(level, msg string) {
	if l.out == nil {
		fmt.Fprintln(l.stderr, "dhow-runtime: "+level+": "+line(msg))
		return
	}
	l.write(level, msg)
}

func (l *logger) write(level, msg string) {
	now := time.Now().Format(time.RFC3339)
	if l.format == "json" {
		line, err := json.Marshal(struct { // in the order of the names, as runc's logger has them
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, msg, now})
		if err == nil {
			l.out.Write(append(line, '\n'))
		}
		return
	}
	fmt.Fprintf(l.out, "time=%q level=%s msg=%s\n", now, level, bare(msg))
}

// line makes a message, parts of which a config, an image or criu's log may have chosen, one line that a terminal shows and does not obey.
func line(msg string) string {
	var b strings.Builder
	for _, r := range strings.ReplaceAll(msg, "\n", "; ") {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// bare quotes a value where it needs quotes.
func bare(s string) string {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/@^+", r)) {
			return strconv.Quote(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}
