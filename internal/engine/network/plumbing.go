package network

import "github.com/dhow-containers/dhow/internal/network"

// The side of the kernel, for whoever wires an engine.
type (
	Plumbing       = network.Service
	PlumbingConfig = network.Config
	Live           = network.LiveContainer
)

// OpenPlumbing opens it.
func OpenPlumbing(c PlumbingConfig) (*Plumbing, error) { return network.Open(c) }
