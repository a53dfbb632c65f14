package facts

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/compile"
)

// user tells who we are: the machine's root, root of some user namespace, or an ordinary user.
func user(f *compile.Facts) {
	f.User = [2]uint32{uint32(os.Geteuid()), uint32(os.Getegid())}
	f.Nested = !initialUsers()
	f.Rootless = f.User[0] != 0 || f.Nested
	if f.User[0] == 0 {
		return
	}
	for k, name := range [2]string{"newuidmap", "newgidmap"} {
		for _, dir := range []string{"/usr/bin/", "/usr/local/bin/", "/bin/"} { // set-user-ID: where root installs programs, whatever $PATH says
			if unix.Access(dir+name, unix.X_OK) == nil {
				f.IDHelpers[k] = dir + name
				break
			}
		}
	}
}

// initialUsers tells whether we are in the machine's own user namespace, whose inode number is fixed (PROC_USER_INIT_INO).
func initialUsers() bool {
	const number = 0xEFFFFFFD
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino == number
}
