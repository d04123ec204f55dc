package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keyferry/keyferry/cmd/internal/envelope"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// envelopeFiles are what a command reads and writes, and what both need of a key.
type envelopeFiles struct {
	in, out string
	pairs   []string
	usage   usage
}

func (e *envelopeFiles) flags(c *cobra.Command) {
	c.Flags().StringVarP(&e.in, "in", "i", "", "`FILE` to read (default standard input)")
	c.Flags().StringVarP(&e.out, "out", "o", "", "`FILE` to make, whole or not at all (default standard output)")
	contextFlag(c, &e.pairs)
	grantFlag(c, &e.usage.grantTokens)
}

func (a *app) envelopeSeal(use string) *cobra.Command {
	var e envelopeFiles
	c := &cobra.Command{
		Use: use, Short: "Encrypt a file of any length: by a data key, which KEY encrypts; one call of the Region", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.stream(c.Context(), e, func(w io.Writer, r io.Reader, encryptionContext map[string]string) error {
				var by string
				err := envelope.Seal(w, r, func(fileKey []byte) (key string, blob []byte, err error) {
					err = a.with(c.Context(), func(ctx context.Context, cl *client) error {
						out, err := cl.crypto.Encrypt(ctx, &kmsv1.EncryptRequest{
							KeyId: keyRef(args[0]), Plaintext: fileKey, EncryptionContext: encryptionContext, GrantTokens: e.usage.grantTokens,
						})
						key, blob, by = out.GetKeyId(), out.GetCiphertextBlob(), out.GetKeyId()
						return err
					})
					return key, blob, err
				})
				if err == nil {
					a.say("sealed under %s", by)
				}
				return err
			})
		},
	}
	e.flags(c)
	return c
}

func (a *app) envelopeOpen(use string) *cobra.Command {
	var e envelopeFiles
	c := &cobra.Command{
		Use: use, Short: "Decrypt what envelope seal made; with KEY, only if that key sealed it", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.stream(c.Context(), e, func(w io.Writer, r io.Reader, encryptionContext map[string]string) error {
				req := &kmsv1.DecryptRequest{EncryptionContext: encryptionContext, GrantTokens: e.usage.grantTokens}
				if len(args) == 1 {
					req.KeyId = keyRef(args[0])
				}
				by, err := envelope.Open(w, r, func(blob []byte) (key string, fileKey []byte, err error) {
					if len(blob) > maxCiphertext {
						return "", nil, fmt.Errorf("%w: its key is longer than %d bytes", envelope.ErrInvalid, maxCiphertext)
					}
					req.CiphertextBlob = blob
					err = a.with(c.Context(), func(ctx context.Context, cl *client) error {
						out, err := cl.crypto.Decrypt(ctx, req)
						key, fileKey = out.GetKeyId(), out.GetPlaintext()
						return err
					})
					return key, fileKey, err
				})
				if err == nil {
					a.say("sealed under %s", by)
				}
				return err
			})
		},
	}
	e.flags(c)
	return c
}

// stream runs work from one file to the other. A file that is made appears whole under its
// name, or not at all; what went to standard output cannot be taken back, so a failure says
// that it must not be used.
func (a *app) stream(ctx context.Context, e envelopeFiles, work func(io.Writer, io.Reader, map[string]string) error) (err error) {
	if a.json {
		return usagef("there is no answer to print as JSON: the result is the file")
	}
	encryptionContext, err := parseContext(e.pairs)
	if err != nil {
		return err
	}
	in := a.In
	if e.in != "" {
		f, err := openInput(e.in)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	in = interruptible{ctx, in}
	if e.out == "" {
		out := &counter{w: a.Out}
		if err = work(out, in, encryptionContext); err != nil && out.n > 0 {
			err = fmt.Errorf("discard the %d bytes that are on standard output, they are not the whole: %w", out.n, err)
		}
		return err
	}
	f, err := newOutput(e.out)
	if err != nil {
		return err
	}
	if err := work(f, in, encryptionContext); err != nil {
		if lost := f.forget(); lost != nil {
			a.say("removing the unfinished file: %v", lost)
		}
		return err // alone, so that the server's name of it is found
	}
	return f.finish()
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// interruptible is a reader that ends with its context, even while it waits for a terminal
// or a pipe.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := i.r.Read(p)
		done <- result{n, err}
	}()
	select {
	case <-i.ctx.Done(): // nobody looks at p again
		return 0, i.ctx.Err()
	case r := <-done:
		return r.n, r.err
	}
}
