package dev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Below the kernel's ephemeral range, so that no outgoing connection takes a daemon's port
// while the daemon is down.
const (
	lowestPort  = 20_000
	highestPort = 32_000
)

func (p *Plan) choosePorts(base int) error {
	next := freePort
	if base != 0 {
		if base < 1024 || base > 65_535-4*MaxRegions {
			return fmt.Errorf("base port %d: want 1024 to %d", base, 65_535-4*MaxRegions)
		}
		next = func(map[int]bool) (int, error) { base++; return base - 1, nil }
	}
	taken := map[int]bool{}
	for i := range p.Regions {
		r := &p.Regions[i]
		for _, port := range []*int{&r.GRPC, &r.REST, &r.Peer, &r.Metrics} {
			n, err := next(taken)
			if err != nil {
				return err
			}
			*port, taken[n] = n, true
		}
	}
	return nil
}

func freePort(taken map[int]bool) (int, error) {
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if taken[port] {
			continue
		}
		l, err := net.Listen("tcp", loopback(port))
		if err == nil {
			l.Close()
			return port, nil
		}
	}
	return 0, errors.New("no free port found on 127.0.0.1: give --base-port")
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
