//go:build !amd64

package tripwire

var older map[int32]kind
