package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/keyferry/keyferry/keyops/arn"
	"github.com/keyferry/keyferry/keyops/mrk"
	"github.com/keyferry/keyferry/keyops/statement"
	"github.com/keyferry/keyferry/keyops/statement/approval"
	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

// What operators approve of many keys at once is in two files: the request, and beside it the
// list of keys whose root the request names.

// keysFile is the list that belongs to a request.
func keysFile(request string) string { return request + ".keys" }

// writeListRequest writes both files.
func (a *app) writeListRequest(ctx context.Context, cl *client, path string, q approval.Request, list mrk.KeyList) error {
	if err := statement.WriteNew(keysFile(path), list.Text(), 0o644); err != nil {
		return err
	}
	return a.writeRequest(ctx, cl, path, q)
}

// approvedList reads both files, and the approvals.
func (c *consent) approvedList() (q approval.Request, list mrk.KeyList, approvals [][]byte, err error) {
	if err = statement.ReadJSON(c.request, &q); err != nil {
		return q, nil, nil, usagef("%w", err)
	}
	if list, err = readKeys(c.request, q); err != nil {
		return q, nil, nil, err
	}
	approvals, err = readFiles(c.approvals)
	return q, list, approvals, err
}

// readKeys reads the list beside a request, which has to be the one that the request names.
func readKeys(request string, q approval.Request) (mrk.KeyList, error) {
	b, err := os.ReadFile(keysFile(request))
	if err != nil {
		return nil, usagef("the list of keys belongs beside the request: %w", err)
	}
	var keys []mrk.ListedKey
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		id, hash, _ := strings.Cut(line, " ")
		head, err := parseHash(hash)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keysFile(request), err)
		}
		keys = append(keys, mrk.ListedKey{Key: arn.KeyID(id), Head: head})
	}
	list, err := mrk.NewKeyList(keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keysFile(request), err)
	}
	if list.Root().String() != detail(q, mrk.DetailKeys) {
		return nil, fmt.Errorf("%s is not the list that the request names: do not approve it", keysFile(request))
	}
	return list, nil
}

// eachShared describes the multi-Region keys of the called Region, one after the other.
func (c *client) eachShared(ctx context.Context, do func(*kmsv1.KeyMetadata) error) error {
	req := &kmsv1.ListKeysRequest{Limit: 1000}
	for {
		page, err := c.keys.ListKeys(ctx, req)
		if err != nil {
			return err
		}
		for _, k := range page.GetKeys() {
			if !strings.HasPrefix(k.GetKeyId(), "mrk-") {
				continue
			}
			out, err := c.keys.DescribeKey(ctx, &kmsv1.DescribeKeyRequest{KeyId: k.GetKeyId()})
			if err != nil {
				return err
			}
			if err := do(out.GetKeyMetadata()); err != nil {
				return err
			}
		}
		if !page.GetTruncated() {
			return nil
		}
		req.Marker = page.GetNextMarker()
	}
}

// listedKey is a described key as it stands on a list.
func listedKey(m *kmsv1.KeyMetadata) (mrk.ListedKey, error) {
	head, err := parseHash(m.GetMultiRegionConfiguration().GetCertificate())
	return mrk.ListedKey{Key: arn.KeyID(m.GetKeyId()), Head: head}, err
}

// pathOf is a proof's path as the API takes it.
func pathOf(p mrk.ListProof) (path [][]byte) {
	for _, h := range p.Path {
		path = append(path, h[:])
	}
	return path
}

// notAll is the error of a command that goes on when one key is refused, or nil.
func notAll(done string, failed []error, of int) error {
	if len(failed) == 0 {
		return nil
	}
	return errors.Join(append([]error{fmt.Errorf("%d of %d keys were not %s", len(failed), of, done)}, failed...)...)
}

func detail(q approval.Request, name string) string {
	for _, d := range q.Object {
		if d.Name == name {
			return d.Text
		}
	}
	return ""
}

func parseHash(s string) (h mrk.Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return h, fmt.Errorf("%.80q: want 64 hexadecimal digits", s)
	}
	return mrk.Hash(b), nil
}
