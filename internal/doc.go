// Package internal holds the law of the house (law.txt, checked by deps_test.go) and nothing else.
//
// It promises that a package which breaks the law breaks the tests; it must never contain code.
package internal
