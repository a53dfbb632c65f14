package oci

import (
	"encoding/hex"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dhow-containers/dhow/internal/oci/state"
)

// keyringName is a new name for a container's session keyring, which nobody can guess; empty where it shall have none of its own.
func keyringName(o *CreateOptions) (string, error) {
	if o.NoNewKeyring {
		return "", nil
	}
	var secret [16]byte
	if _, err := unix.Getrandom(secret[:], 0); err != nil {
		return "", fmt.Errorf("name the session keyring: getrandom: %w", err)
	}
	return "_ses." + o.ID + "." + hex.EncodeToString(secret[:]), nil
}

// keyringOf is the name of a container's session keyring; one made by an earlier version has its ID's.
func keyringOf(s *state.State) string {
	if s.Keyring == "" && !s.NoNewKeyring {
		return "_ses." + s.ID
	}
	return s.Keyring
}
