// Package e2e owns the tests of the whole: the real programs, driven by our own client and by docker's, against a real registry,
// each engine in a network namespace, data root and cgroup of its own.
//
// It promises that every test ends with a leak check and that every wait has a deadline. It must never hold code that a program
// uses: all but this comment are tests. What can be a script is one, below testdata; scripts_test.go says which words they know.
package e2e
