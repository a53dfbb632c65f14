// Package peers owns the tests of dhow-runtime under the engines of others: podman, docker.io, containerd and buildah, as Debian has them,
// each in a mount and network namespace with folders and a cgroup of its own.
//
// It promises that what an engine did not find here is a skipped test that says so, and that each ends with a leak check. It must never
// hold code that a program uses. The scripts below testdata hold what is typed and what comes out; with runc in our place it is the same.
package peers
