package main

import (
	"net"
	"testing"
	"time"
)

// Whoever reaches the peers' port gets so many connections and no more: the next one waits
// until another ends, and costs nothing but a place in the kernel's queue.
func TestPeerConnections(t *testing.T) {
	l, err := listenPeers("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var last net.Conn
	for i := range peerConnections {
		dial()
		select {
		case last = <-accepted:
			defer last.Close()
		case <-time.After(time.Minute):
			t.Fatalf("connection %d of %d is not accepted", i+1, peerConnections)
		}
	}
	dial()
	select {
	case <-accepted:
		t.Fatalf("connection %d is accepted", peerConnections+1)
	case <-time.After(100 * time.Millisecond):
	}
	last.Close()
	select {
	case c := <-accepted:
		c.Close()
	case <-time.After(time.Minute):
		t.Fatal("no connection is accepted after one has ended")
	}
}
