// Package id owns the names that dhow gives by itself: 64-digit object IDs and readable container names.
//
// It promises that an ID is lower-case hexadecimal, never all digits in its first twelve characters (so that a short ID is
// not mistaken for a number), and that a valid name is safe as a path component. It must never look at what already exists.
package id

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
)

// Len is the length of a full ID; ShortLen is what lists show.
const (
	Len      = 64
	ShortLen = 12
)

var nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// New returns a random ID of 256 bits.
func New() string {
	for {
		var b [Len / 2]byte
		rand.Read(b[:]) // never fails: crypto/rand documents that it crashes the program instead
		s := hex.EncodeToString(b[:])
		if !allDigits(s[:ShortLen]) {
			return s
		}
	}
}

// Short cuts an ID (with or without the sha256: prefix) to its first twelve digits.
func Short(s string) string {
	if len(s) > 7 && s[:7] == "sha256:" {
		s = s[7:]
	}
	if len(s) > ShortLen {
		return s[:ShortLen]
	}
	return s
}

// ValidName tells why s cannot name a container, volume or network, or nil.
func ValidName(s string) error {
	if !nameRE.MatchString(s) || len(s) > 255 {
		return fmt.Errorf("invalid name %q: use 2 to 255 characters of [a-zA-Z0-9_.-], the first a letter or digit", s)
	}
	return nil
}

// Name returns a random readable name, adjective_noun; from the second attempt on a digit is added.
func Name(attempt int) string {
	s := pick(adjectives) + "_" + pick(nouns)
	if attempt > 0 {
		s += fmt.Sprint(number(10))
	}
	return s
}

func pick(list []string) string { return list[number(len(list))] }

func number(n int) int {
	v, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // crypto/rand.Reader does not fail
	}
	return int(v.Int64())
}

func allDigits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
