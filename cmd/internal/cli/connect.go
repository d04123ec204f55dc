package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyferry/keyferry/cmd/internal/cliconfig"
	"github.com/keyferry/keyferry/keyops/arn"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// client is a connection to one Region.
type client struct {
	region string
	keys   kmsv1.KeyServiceClient
	crypto kmsv1.CryptoServiceClient
	info   kmsv1.RegionServiceClient
	sync   kmsv1.SynchronizationServiceClient
}

// with connects to the chosen Region and calls f within the command's time limit.
func (a *app) with(ctx context.Context, f func(context.Context, *client) error) error {
	file, cfg, err := a.load()
	if err != nil {
		return err
	}
	name, entry, err := cfg.Choose(a.region)
	if err != nil {
		return usagef("choosing the Region from %s: %w", file, err)
	}
	options, err := credentialsOf(entry)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(entry.GRPC, options...)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", name, err)
	}
	defer conn.Close()
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	err = f(ctx, &client{
		region: string(name),
		keys:   kmsv1.NewKeyServiceClient(conn),
		crypto: kmsv1.NewCryptoServiceClient(conn),
		info:   kmsv1.NewRegionServiceClient(conn),
		sync:   kmsv1.NewSynchronizationServiceClient(conn),
	})
	if s, ok := status.FromError(err); ok && s.Code() == codes.Unavailable && reason(err) == "" {
		return fmt.Errorf("reaching %s at %s: %s", name, entry.GRPC, s.Message())
	}
	return err
}

// load reads the configuration, and says from where.
func (a *app) load() (string, *cliconfig.Config, error) {
	file := a.config
	if file == "" {
		var err error
		if file, err = cliconfig.Path(); err != nil {
			return "", nil, err
		}
	}
	cfg, err := cliconfig.Load(file)
	if err != nil {
		return "", nil, usageError{err}
	}
	return file, cfg, nil
}

// regionsOf returns the Regions that a command is to call: those given, or all that the
// configuration names.
func (a *app) regionsOf(given []string) ([]string, error) {
	file, cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	if len(given) == 0 {
		for name := range cfg.Regions {
			given = append(given, string(name))
		}
	}
	slices.Sort(given)
	given = slices.Compact(given)
	for _, name := range given {
		if _, _, err := cfg.Choose(name); err != nil {
			return nil, usagef("choosing the Region from %s: %w", file, err)
		}
	}
	return given, nil
}

// keyRef turns what a user types into what the API takes: an ID, an ARN or alias/NAME stays
// itself, anything else is the name of an alias.
func keyRef(s string) string {
	if strings.HasPrefix(s, "arn:") || strings.HasPrefix(s, "alias/") {
		return s
	}
	if _, err := arn.ParseKeyID(s); err == nil {
		return s
	}
	return "alias/" + s
}

// keyID returns the key ID behind a reference, for the operations that take no alias.
func (c *client) keyID(ctx context.Context, ref string) (string, error) {
	ref = keyRef(ref)
	if id, err := arn.ParseKeyID(ref); err == nil {
		return string(id), nil
	}
	r, err := arn.ParseResource(ref)
	if err == nil && r.Key != nil {
		return ref, nil
	}
	out, err := c.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: ref})
	if err != nil {
		return "", err
	}
	return out.GetKeyMetadata().GetKeyId(), nil
}
