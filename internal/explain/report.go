// Package explain owns the comparison of what was asked for a container, what was promised to it, and what the kernel says now.
//
// It promises that every row names the flag or image field behind it, that one thing which cannot be read costs one row and not
// the report, and that all reads are bounded. It must never change anything: neither files nor the kernel.
package explain

import (
	"fmt"
	"time"
)

// Report is everything that is known of one container. Its strings come from the container too: whoever prints them escapes them.
type Report struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Image  string    `json:"image"`
	Status string    `json:"status"`
	Pid    int       `json:"pid,omitempty"` // of its first process, on the host; 0 when it does not run
	At     time.Time `json:"at"`
	// Differences counts the rows that differ.
	Differences int       `json:"differences"`
	Notes       []string  `json:"notes,omitempty"`
	Sections    []Section `json:"sections"`
	Program     Program   `json:"program"`
}

// Section is one side of a container: its namespaces, its mounts, ...
type Section struct {
	Name  string `json:"name"`  // one word, stable
	Title string `json:"title"` // for people
	Rows  []Row  `json:"rows"`
}

// Row is one thing. Planned is empty where nothing was promised, Kernel where nothing could be asked of the kernel.
type Row struct {
	What    string `json:"what"`
	Asked   string `json:"asked,omitempty"`   // "flag --memory 64MiB", "image field Config.Env", "default"
	Planned string `json:"planned,omitempty"` // as config.json or the network plan has it
	Kernel  string `json:"kernel,omitempty"`  // as the kernel has it now
	// Differs marks that the kernel does not hold what was promised.
	Differs bool   `json:"differs,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Program is the listing that made the container, one instruction a line.
type Program struct {
	Path  string   `json:"path,omitempty"`
	Host  int      `json:"host_lane,omitempty"`
	Child int      `json:"child_lane,omitempty"`
	Lines []string `json:"lines,omitempty"`
	Note  string   `json:"note,omitempty"`
}

func (s *Section) add(r Row) { s.Rows = append(s.Rows, r) }

// compare adds a row whose two sides are equal when they read the same; without a live kernel side nothing differs.
func (s *Section) compare(what, asked, planned, kernel string) *Row {
	s.add(Row{What: what, Asked: asked, Planned: planned, Kernel: kernel, Differs: kernel != "" && planned != kernel})
	return &s.Rows[len(s.Rows)-1]
}

// unread adds what is promised and why the kernel's side is missing.
func (s *Section) unread(what, asked, planned string, err error) {
	s.add(Row{What: what, Asked: asked, Planned: planned, Note: fmt.Sprintf("not read: %v", err)})
}
