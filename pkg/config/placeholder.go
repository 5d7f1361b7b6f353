package config

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// placeholderKey is the shape of the service's keys where the real one tells none: whose, 26 of A-Z0-9, 64 of a-f0-9.
const placeholderKey = "sgamp_user_00000000000000000000000000_0000000000000000000000000000000000000000000000000000000000000000"

// Placeholder is a random key of the same shape that opens nothing: the same length and the same parts, each
// of the same kind of characters.
func (k Key) Placeholder() (Key, error) {
	parts := strings.Split(k.secret, "_")
	if last := parts[len(parts)-1]; len(last) < 16 { // not the shape that is known: not a part of it may stay
		parts = strings.Split(placeholderKey, "_")
	}
	for i, part := range parts {
		if len(part) < 8 {
			continue // what kind of key it is
		}
		random := make([]byte, len(part))
		if _, err := rand.Read(random); err != nil {
			return Key{}, fmt.Errorf("make a placeholder for the key: %w", err)
		}
		alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		if strings.ContainsAny(part, "abcdefghijklmnopqrstuvwxyz") || i == len(parts)-1 {
			alphabet = "abcdef0123456789"
		}
		for j, b := range random {
			random[j] = alphabet[int(b)%len(alphabet)]
		}
		parts[i] = string(random)
	}
	return Key{strings.Join(parts, "_")}, nil
}
