//go:build !linux

package gateway

import "net"

// pipes are what Linux moves streams through.
type pipes struct{}

func (*pipes) close() {}

// move leaves it to the caller to copy.
func (*pipes) move(net.Conn, net.Conn) (over bool, err error) { return false, nil }
