package registry

import "slices"

// Insecurely is a client that may also speak to host by http or with an unverified certificate.
func (k *Client) Insecurely(host string) *Client {
	c := k.c
	c.Insecure = append(slices.Clone(c.Insecure), host)
	return New(c)
}
