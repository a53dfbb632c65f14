// Empty on purpose: a file of assembly lets the package declare functions without a body (see child_unsafe.go).
