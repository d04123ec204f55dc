package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

func (a *app) keyRotation() *cobra.Command {
	c := &cobra.Command{Use: "rotation", Short: "Give a key new material regularly", Args: cobra.NoArgs, RunE: needsCommand}
	c.AddCommand(a.rotationShow("show KEY"), a.rotationEnable("enable KEY"), a.rotationDisable("disable KEY"))
	return c
}

func (a *app) rotationEnable(use string) *cobra.Command {
	var period days
	c := a.onKey(use, "Rotate a key automatically, or change how often", func(ctx context.Context, cl *client, id string) (string, error) {
		_, err := cl.keys.EnableKeyRotation(ctx, &kmsv1.EnableKeyRotationRequest{KeyId: id, RotationPeriodInDays: uint32(period)})
		return "rotated automatically", err
	})
	c.Flags().Var(&period, "period", "90 to 2560 `DAYS` from one rotation to the next (default 365d)")
	return c
}

func (a *app) rotationDisable(use string) *cobra.Command {
	return a.onKey(use, "Rotate a key automatically no more; what it has encrypted stays readable", func(ctx context.Context, cl *client, id string) (string, error) {
		_, err := cl.keys.DisableKeyRotation(ctx, &kmsv1.DisableKeyRotationRequest{KeyId: id})
		return "no longer rotated automatically", err
	})
}

func (a *app) rotationShow(use string) *cobra.Command {
	return a.onKeyWith(use, "Show when a key is rotated, and how far a rotation has got", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			out, err := cl.keys.GetKeyRotationStatus(ctx, &kmsv1.GetKeyRotationStatusRequest{KeyId: id})
			if err != nil {
				return err
			}
			if a.json {
				return a.print(out)
			}
			return a.rotation(out)
		})
}

func (a *app) rotation(s *kmsv1.GetKeyRotationStatusResponse) error {
	w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "automatic\t%s\n", yes(s.GetKeyRotationEnabled()))
	if s.GetKeyRotationEnabled() {
		fmt.Fprintf(w, "period\t%d days\nnext\t%s\n", s.GetRotationPeriodInDays(), clock(s.GetNextRotationDate().AsTime(), s.GetNextRotationDate() != nil))
	}
	fmt.Fprintf(w, "on demand\t%d left\n", s.GetOnDemandRotationsLeft())
	if s.GetOnDemandRotationStartDate() != nil {
		fmt.Fprintf(w, "on demand since\t%s\n", s.GetOnDemandRotationStartDate().AsTime().Format(time.RFC3339))
	}
	if p := s.GetProgress(); p != nil {
		fmt.Fprintf(w, "under way\t%s, since %s, material %s\n", p.GetRotationType(), clock(p.GetStartedDate().AsTime(), p.GetStartedDate() != nil), p.GetKeyMaterialId())
		fmt.Fprintf(w, "held in\t%s\nawaited in\t%s\n", dash(strings.Join(p.GetHoldingRegions(), ", ")), dash(strings.Join(p.GetAwaitedRegions(), ", ")))
		if len(p.GetOutRegions()) > 0 {
			fmt.Fprintf(w, "not awaited in\t%s\n", strings.Join(p.GetOutRegions(), ", "))
		}
		if p.GetAlone() {
			fmt.Fprintf(w, "waits\tnobody else is awaited, so the material would exist in one token only\n")
		}
	}
	return w.Flush()
}

func (a *app) keyRotate(use string) *cobra.Command {
	var alone, wait bool
	c := a.onKeyWith(use, "Give a key new material now; what it has encrypted stays readable", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			if _, err := cl.keys.RotateKeyOnDemand(ctx, &kmsv1.RotateKeyOnDemandRequest{KeyId: id, AcceptAlone: alone}); err != nil {
				return err
			}
			if wait {
				return a.awaitRotation(ctx, cl, id)
			}
			a.say("%s is rotated, or on its way (keyferry key rotation show), in %s", id, cl.region)
			return nil
		})
	c.Flags().BoolVar(&alone, "accept-alone", false, "accept that the new material is in one token only, because no other Region is waited for; also of a rotation that waits for that")
	c.Flags().BoolVar(&wait, "wait", false, "show which Regions hold the new material and which are awaited, and return when it is current")
	return c
}

// awaitRotation prints each change of a rotation until the key encrypts with the new material.
func (a *app) awaitRotation(ctx context.Context, cl *client, id string) error {
	return a.follow(ctx, cl.region, "key rotation show", func() (string, bool, error) {
		out, err := cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: id})
		if err != nil {
			return "", false, err
		}
		m := out.GetKeyMetadata()
		if m.GetOrigin() != external { // whose rotation is a release, and done with the call
			s, err := cl.keys.GetKeyRotationStatus(ctx, &kmsv1.GetKeyRotationStatusRequest{KeyId: id})
			if p := s.GetProgress(); err != nil || p != nil {
				return "rotating" + waitsFor(p), false, err
			}
			if out, err = cl.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: id}); err != nil {
				return "", false, err
			}
			m = out.GetKeyMetadata()
		}
		return "encrypts with " + m.GetCurrentKeyMaterialId(), true, nil
	})
}

// external is the origin of keys whose material their owners import.
const external = "EXTERNAL"

// waitsFor says who holds the new material of a rotation, and who is to.
func waitsFor(p *kmsv1.RotationProgress) string {
	words := ", held in " + dash(strings.Join(p.GetHoldingRegions(), ", "))
	if len(p.GetAwaitedRegions()) > 0 {
		words += "; awaited in " + strings.Join(p.GetAwaitedRegions(), ", ")
	}
	if len(p.GetOutRegions()) > 0 {
		words += "; not awaited in " + strings.Join(p.GetOutRegions(), ", ")
	}
	if p.GetAlone() {
		words += "; waits for --accept-alone"
	}
	return words
}

func (a *app) keyRotations(use string) *cobra.Command {
	var all bool
	c := a.onKeyWith(use, "List a key's rotations: date, type, material", cobra.ExactArgs(1),
		func(ctx context.Context, cl *client, id string, _ []string) error {
			req := &kmsv1.ListKeyRotationsRequest{KeyId: id}
			if all {
				req.IncludeKeyMaterial = "ALL_KEY_MATERIAL"
			}
			w := tabwriter.NewWriter(a.Out, 0, 0, 2, ' ', 0)
			for {
				out, err := cl.keys.ListKeyRotations(ctx, req)
				if err != nil {
					return err
				}
				for _, e := range out.GetRotations() {
					if a.json {
						if err := a.print(e); err != nil {
							return err
						}
						continue
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\n", clock(e.GetRotationDate().AsTime(), e.GetRotationDate() != nil), dash(e.GetRotationType()),
						e.GetKeyMaterialState(), e.GetKeyMaterialId(), held(e)+imported(e))
				}
				if !out.GetTruncated() {
					return w.Flush()
				}
				req.Marker = out.GetNextMarker()
			}
		})
	c.Flags().BoolVar(&all, "all", false, "all materials: the first one and a pending one, too")
	return c
}

// held says how durable the material of a multi-Region key was when it became current.
func held(e *kmsv1.RotationsListEntry) string {
	words := ""
	if n := e.GetHolders(); n > 0 {
		words = fmt.Sprintf("\tin %d Regions when it became current", n)
	}
	if e.GetWrittenOff() {
		words += "\twritten off"
	}
	return words
}

// imported says what there is to say of imported material.
func imported(e *kmsv1.RotationsListEntry) string {
	if e.GetImportState() == "" {
		return ""
	}
	words := "\t" + e.GetImportState()
	if e.GetValidTo() != nil {
		words += ", expires " + e.GetValidTo().AsTime().Format(time.RFC3339)
	}
	if e.GetKeyMaterialDescription() != "" {
		words += ", " + plain(e.GetKeyMaterialDescription())
	}
	return words
}
