package dev

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keyferry/keyferry/keyops/region"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// RegionStatus is what is known of one Region's daemon.
type RegionStatus struct {
	Region   region.Name `json:"region"`
	GRPC     string      `json:"grpc"`
	REST     string      `json:"rest"`
	Dir      string      `json:"dir"`
	PID      int         `json:"pid,omitempty"` // 0 when it is not running
	Serving  bool        `json:"serving"`
	Instance string      `json:"instance,omitempty"`
	Token    string      `json:"token_serial,omitempty"`
	Boundary string      `json:"boundary,omitempty"` // token, api-only or none
	Peers    []PeerLink  `json:"peers,omitempty"`
	Problem  string      `json:"problem,omitempty"`
}

// PeerLink is how a Region sees its connection to another.
type PeerLink struct {
	Region    string `json:"region"`
	Connected bool   `json:"connected"`
	Problem   string `json:"problem,omitempty"`
}

// Ready reports whether the Region serves and all its peers are connected.
func (s RegionStatus) Ready() bool {
	for _, p := range s.Peers {
		if !p.Connected {
			return false
		}
	}
	return s.Serving
}

// Status asks every Region how it is.
func (d *Deployment) Status(ctx context.Context) []RegionStatus {
	all := make([]RegionStatus, len(d.plan.Regions))
	for i, r := range d.plan.Regions {
		all[i] = d.status(ctx, r)
	}
	return all
}

func (d *Deployment) status(ctx context.Context, r RegionPlan) RegionStatus {
	s := RegionStatus{Region: r.Name, GRPC: loopback(r.GRPC), REST: "https://" + loopback(r.REST), Dir: d.in(r.Name)}
	p, running := d.process(r.Name)
	if !running {
		s.Problem = "not running"
		return s
	}
	s.PID = p.PID
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := d.ask(ctx, r, &s); err != nil {
		s.Problem = err.Error()
	}
	return s
}

// ask fills in what the Region says of itself. An answer means that it serves.
func (d *Deployment) ask(ctx context.Context, r RegionPlan, s *RegionStatus) error {
	tls, err := d.clientTLS(Admin)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(loopback(r.GRPC), grpc.WithTransportCredentials(credentials.NewTLS(tls)))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := kmsv1.NewRegionServiceClient(conn)
	own, err := client.DescribeRegion(ctx, &kmsv1.DescribeRegionRequest{})
	if err != nil {
		return err
	}
	peers, err := client.ListPeers(ctx, &kmsv1.ListPeersRequest{})
	if err != nil {
		return err
	}
	s.Serving = true
	s.Instance = own.GetInstanceId()
	s.Token = own.GetToken().GetSerial()
	s.Boundary = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(own.GetBoundary().String(), "BOUNDARY_"), "_", "-"))
	for _, p := range peers.GetPeers() {
		s.Peers = append(s.Peers, PeerLink{Region: p.GetRegion(), Connected: p.GetConnected(), Problem: p.GetLastError()})
	}
	return nil
}

// await waits until the Regions are ready. With each other's Regions running, that includes
// that they are connected.
func (d *Deployment) await(ctx context.Context, names []region.Name, ready func(RegionStatus) bool) error {
	for {
		var waiting []string
		for _, name := range names {
			r, err := d.region(name)
			if err != nil {
				return err
			}
			s := d.status(ctx, r)
			if s.PID == 0 {
				return fmt.Errorf("the daemon of %s ended; its log says:\n%s", name, d.logTail(name))
			}
			if !ready(s) {
				waiting = append(waiting, s.String())
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready in time:\n%s", strings.Join(waiting, "\n"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// String says in one line how the Region is.
func (s RegionStatus) String() string {
	switch {
	case s.PID == 0:
		return fmt.Sprintf("%-12s down", s.Region)
	case !s.Serving:
		return fmt.Sprintf("%-12s process %d, not serving: %s", s.Region, s.PID, s.Problem)
	}
	line := fmt.Sprintf("%-12s serving, process %d, gRPC %s, REST %s, token %s, boundary %s",
		s.Region, s.PID, s.GRPC, s.REST, s.Token, s.Boundary)
	for i, p := range s.Peers {
		line += map[bool]string{true: ", peers: ", false: ", "}[i == 0]
		if p.Connected {
			line += p.Region
		} else {
			line += fmt.Sprintf("not %s (%s)", p.Region, p.Problem)
		}
	}
	return line
}

// Env prints shell commands that point the keyferry command, and curl, at the deployment
// as the named client.
func (d *Deployment) Env(w io.Writer, client string) error {
	config, err := d.MakeClient(client)
	if err != nil {
		return err
	}
	vars := [][2]string{
		{"KEYFERRY_CONFIG", config},
		{"KEYFERRY_CA", d.path("ca.crt")},
		{"KEYFERRY_CERT", d.path("clients", client, "client.crt")},
		{"KEYFERRY_KEY", d.path("clients", client, "client.key")},
	}
	for _, r := range d.plan.Regions {
		suffix := strings.ToUpper(strings.ReplaceAll(string(r.Name), "-", "_"))
		vars = append(vars,
			[2]string{"KEYFERRY_GRPC_" + suffix, loopback(r.GRPC)},
			[2]string{"KEYFERRY_REST_" + suffix, "https://" + loopback(r.REST)})
	}
	for _, v := range vars {
		// In single quotes a shell takes everything as it is, but a single quote.
		fmt.Fprintf(w, "export %s='%s'\n", v[0], strings.ReplaceAll(v[1], "'", `'\''`))
	}
	return nil
}
