// Package mountinfo owns how the kernel writes names into /proc/PID/mountinfo (proc_pid_mountinfo(5)).
//
// It promises to undo what the kernel escapes, and to leave alone what it does not know. It must never read a file: who needs which
// fields differs.
package mountinfo

import (
	"strconv"
	"strings"
)

// Unescape undoes the octal escapes of blanks, tabs, newlines and backslashes in a field: \040 is a space.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
