package cli

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"testing"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// Who waits is shown each change once, and what is left when the time is up.
func TestFollow(t *testing.T) {
	type answer struct {
		now  string
		done bool
		err  error
	}
	refused := errors.New("refused")
	for _, tc := range []struct {
		name    string
		answers []answer // the last one for ever
		want    string
		wantErr string
	}{
		{"changes", []answer{{"begun", false, nil}, {"begun", false, nil}, {"half", false, nil}, {"whole", true, nil}}, "r: begun\nr: half\nr: whole\n", ""},
		{"refused", []answer{{"begun", false, nil}, {"", true, refused}}, "r: begun\n", "refused"},
		{"done and refused", []answer{{"not taken over", true, refused}}, "", "refused"},
		{"never done", []answer{{"begun", false, nil}, {"half", false, nil}}, "r: begun\nr: half\n", "r is still half; it goes on by itself, see keyferry look"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var said bytes.Buffer
			a, asked := &app{Streams: Streams{Err: &said}}, 0
			err := a.follow(ctx, "r", "look", func() (string, bool, error) {
				one := tc.answers[min(asked, len(tc.answers)-1)]
				if asked++; asked > len(tc.answers) {
					cancel()
				}
				return one.now, one.done, one.err
			})
			if got := regexp.MustCompile(` \(after [^)]*\)`).ReplaceAllString(said.String(), ""); got != tc.want {
				t.Errorf("said %q, want %q", got, tc.want)
			}
			if (err != nil) != (tc.wantErr != "") || err != nil && err.Error() != tc.wantErr {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
		})
	}
}

// A call that ends with the caller's patience is not the end of what is waited for.
func TestFollowUntilTheTimeIsUp(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	asked := 0
	err := (&app{Streams: Streams{Err: &bytes.Buffer{}}}).follow(ctx, "r", "look", func() (string, bool, error) {
		if asked++; asked == 1 {
			return "begun", false, nil
		}
		cancel()
		return "", true, ctx.Err()
	})
	if err == nil || err.Error() != "r is still begun; it goes on by itself, see keyferry look" {
		t.Errorf("error %v", err)
	}
}

func TestWaitsFor(t *testing.T) {
	for want, p := range map[string]*kmsv1.RotationProgress{
		", held in eu-paris-1; awaited in ap-tokyo-1, us-east-1": {HoldingRegions: []string{"eu-paris-1"}, AwaitedRegions: []string{"ap-tokyo-1", "us-east-1"}},
		", held in eu-paris-1; not awaited in us-east-1; waits for --accept-alone": {
			HoldingRegions: []string{"eu-paris-1"}, OutRegions: []string{"us-east-1"}, Alone: true,
		},
	} {
		if got := waitsFor(p); got != want {
			t.Errorf("said %q, want %q", got, want)
		}
	}
}
