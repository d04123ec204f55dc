package replication_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/keyops/keyopstest"
	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/transport"
	"github.com/keyferry/keyferry/replication"
	"github.com/keyferry/keyferry/softhsm/softhsmtest"
)

// realEnds are the Regions that have a real token each in this package's tests.
var realEnds = []transport.End{
	{Region: paris, Instance: region.NewInstanceID()},
	{Region: east, Instance: region.NewInstanceID()},
}

// established has the transport keys of the real tokens for every ordered pair.
var established = map[transport.Name]map[hsm.Class]hsmtest.Transport{}

func TestMain(m *testing.M) {
	os.Exit(softhsmtest.MainWith(m, establishAll, string(paris), string(east)))
}

func tokenConfig(label region.Name) hsm.Config {
	tok := softhsmtest.Named(string(label))
	return hsm.Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, Profile: hsm.SoftHSM2()}
}

// establishAll is two ceremonies without their paper: both ends are in this process, where a
// token can be opened for its officer once only.
func establishAll() error {
	ends := map[transport.End]*hsm.Ceremony{}
	offers := map[transport.End][]byte{}
	for _, end := range realEnds {
		i := slices.IndexFunc(names(), func(n transport.Name) bool { return n.Source == end })
		var trusted []hsm.Spec
		for _, class := range hsm.Classes {
			trusted = append(trusted, names()[i].Spec(hsm.RoleTransportSource, class))
		}
		c, err := hsm.OpenCeremony(context.Background(), hsm.CeremonyConfig{
			Config: tokenConfig(end.Region), SOPINFile: softhsmtest.Named(string(end.Region)).SOPINFile, Trusted: trusted,
		})
		if err != nil {
			return fmt.Errorf("opening the token of %s: %w", end.Region, err)
		}
		defer c.Close()
		if offers[end], err = c.NewEstablishment("test"); err != nil {
			return err
		}
		ends[end] = c
	}
	for _, name := range names() {
		if err := carry(ends[name.Source], ends[name.Destination], offers[name.Destination], name); err != nil {
			return fmt.Errorf("establishing %s: %w", name, err)
		}
	}
	return nil
}

// names lists every ordered pair.
func names() []transport.Name {
	var out []transport.Name
	for _, source := range realEnds {
		for _, destination := range realEnds {
			if source != destination {
				out = append(out, transport.Name{Source: source, Destination: destination, Epoch: 1})
			}
		}
	}
	return out
}

func carry(source, destination *hsm.Ceremony, offer []byte, name transport.Name) error {
	ctx := context.Background()
	established[name] = map[hsm.Class]hsmtest.Transport{}
	for _, class := range hsm.Classes {
		ids := hsmtest.Transport{Source: hsm.NewID(), Destination: hsm.NewID()}
		wrapped, err := source.WrapTrusted(class, offer)
		if err != nil {
			return err
		}
		err = errors.Join(
			source.KeepTrusted(ctx, name.Spec(hsm.RoleTransportSource, class), ids.Source),
			destination.OpenTransport(ctx, name.Spec(hsm.RoleTransportDestination, class), ids.Destination, wrapped),
		)
		if err != nil {
			return err
		}
		established[name][class] = ids
	}
	return nil
}

// realSites starts Regions on real tokens, all of them connected.
func realSites(t testing.TB, config func(*replication.Config)) []*site {
	t.Helper()
	softhsmtest.Used(t)
	var sites []*site
	serials := map[string]bool{}
	for _, end := range realEnds {
		tok, err := hsm.Open(t.Context(), tokenConfig(end.Region))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tok.Close)
		serials[tok.Info().Serial] = true
		sites = append(sites, newSite(t, keyopstest.New(t, keyopstest.Options{Name: end.Region, Instance: end.Instance, Token: tok})))
	}
	if len(serials) != len(sites) {
		t.Fatalf("%d Regions on %d tokens", len(sites), len(serials))
	}
	byEnd := map[transport.End]*keyopstest.Region{}
	for i, s := range sites {
		s.all = sites
		byEnd[realEnds[i]] = s.region
	}
	for name, made := range established {
		if err := keyopstest.Transcribe(t.Context(), byEnd[name.Source], byEnd[name.Destination], name, made); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sites {
		s.config = config
		s.start()
	}
	return sites
}

// TestRealTokens makes replicas of all kinds between SoftHSM tokens.
func TestRealTokens(t *testing.T) {
	sites := realSites(t, nil)
	for _, kind := range kinds {
		t.Run(string(kind.spec), func(t *testing.T) {
			for _, s := range sites {
				s.t = t
			}
			id := sites[0].create(kind.spec, kind.usage)
			wraps, unwraps, objects := counts(sites[0], "C_WrapKey"), counts(sites[1], "C_UnwrapKey"), objectCount(t, sites[1])
			sites[0].mustReplicate(id, sites[1])
			sites[0].synchronized(id, sites[1])
			if got := counts(sites[0], "C_WrapKey") - wraps; got != 1 {
				t.Errorf("%d C_WrapKey at the source", got)
			}
			if got := counts(sites[1], "C_UnwrapKey") - unwraps; got != 1 {
				t.Errorf("%d C_UnwrapKey at the destination", got)
			}
			if got := objectCount(t, sites[1]) - objects; got < 1 {
				t.Errorf("the destination's token has %d objects more", got)
			}
			for _, pair := range pairs(sites) {
				kind.use(t, id, pair[0], pair[1])
			}
		})
	}
	for _, s := range sites {
		s.t = t
		s.noAlarms()
	}
}

func counts(s *site, function string) uint64 {
	return s.region.Token.(interface{ Calls() map[string]uint64 }).Calls()[function]
}

func objectCount(t *testing.T, s *site) int {
	t.Helper()
	tok := s.region.Token.(*hsm.Token)
	if err := tok.Rescan(t.Context()); err != nil {
		t.Fatal(err)
	}
	return len(tok.Objects())
}
