package docker

func containerChanges(c *call) error {
	v, err := c.engine.Files.Changes(c.ctx, c.param("id"))
	return c.done(list(v), err)
}
