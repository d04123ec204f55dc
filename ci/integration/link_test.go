package integration

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// link is a proxy on the way from one Region to another. It sees ciphertext only, so that
// what it can do is what a network does: pass, delay, cut, or swallow the answers, after
// which the sender says everything again.
type link struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	fault fault
	conns map[net.Conn]bool
}

type fault struct {
	cut   bool          // connections are closed and refused
	deaf  bool          // what is said arrives, the answers do not
	delay time.Duration // of each piece, in both directions
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &link{listener: l, to: to, conns: map[net.Conn]bool{}}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.set(fault{cut: true})
		served.Wait()
	})
	return p
}

func (p *link) address() string { return p.listener.Addr().String() }

// set changes what the link does from now on. A cut ends the connections that there are, and
// those that lack what was swallowed do not outlive that.
func (p *link) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	healed := p.fault.deaf && !f.deaf
	p.fault = f
	if f.cut || healed {
		for c := range p.conns {
			c.Close()
		}
	}
}

func (p *link) now() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// keep takes part of the connections that a cut closes, unless the link is cut.
func (p *link) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.cut {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *link) forget(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *link) serve(from net.Conn) {
	if !p.keep(from) {
		return
	}
	defer p.forget(from)
	to, err := net.DialTimeout("tcp", p.to, 10*time.Second)
	if err != nil || !p.keep(to) {
		return
	}
	defer p.forget(to)
	var both sync.WaitGroup
	both.Go(func() { p.copy(to, from, false) })
	both.Go(func() { p.copy(from, to, true) })
	both.Wait()
}

func (p *link) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		f := p.now()
		if f.delay > 0 {
			time.Sleep(f.delay)
		}
		if n > 0 && !(f.deaf && answers) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// TestLink holds the proxy itself against what it says.
func TestLink(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	p := newLink(t, echo.Addr().String())
	say := func(limit time.Duration) error {
		c, err := net.Dial("tcp", p.address())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(limit))
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	}
	for _, tc := range []struct {
		name  string
		fault fault
		works bool
	}{{"pass", fault{}, true}, {"delay", fault{delay: 20 * time.Millisecond}, true}, {"cut", fault{cut: true}, false}, {"deaf", fault{deaf: true}, false}} {
		p.set(tc.fault)
		limit := 300 * time.Millisecond // for an answer that never comes
		if tc.works {
			limit = time.Minute
		}
		if err := say(limit); (err == nil) != tc.works {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
