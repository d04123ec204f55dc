package gateway_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/keyferry/keyferry/gateway"
)

func TestEveryMethodHasARow(t *testing.T) {
	s := start(t, nil)
	rows := gateway.MethodRows()
	unserved := map[string]bool{}
	for name := range rows {
		unserved[name] = true
	}
	for service, info := range s.GRPC().GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			delete(unserved, name)
			row, ok := rows[name]
			if !ok {
				t.Errorf("%s is served and has no row", name)
				continue
			}
			streams := m.IsClientStream || m.IsServerStream
			if row.Bounded == streams {
				t.Errorf("%s: has a deadline is %v, is a stream is %v", name, row.Bounded, streams)
			}
			if row.MaxBytes <= 0 || row.MaxBytes > 2<<20 {
				t.Errorf("%s: size limit %d", name, row.MaxBytes)
			}
			if strings.HasPrefix(service, "keyferry.") != (row.Audit != "") {
				t.Errorf("%s: audit kind %q", name, row.Audit)
			}
			if row.Action != "" && !strings.HasPrefix(row.Action, "kms:") {
				t.Errorf("%s: action %q", name, row.Action)
			}
		}
	}
	for name := range unserved {
		t.Errorf("%s has a row and is not served", name)
	}
}

// stranger is a service that somebody registered without a row.
type stranger struct{ reached bool }

func TestMethodWithoutARowIsRefused(t *testing.T) {
	odd := &stranger{}
	s := startWithService(t, &grpc.ServiceDesc{
		ServiceName: "test.Stranger",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Do", Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			if err := dec(in); err != nil {
				return nil, err
			}
			info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Stranger/Do"}
			return interceptor(ctx, in, info, func(context.Context, any) (any, error) {
				odd.reached = true
				return in, nil
			})
		}}},
	}, odd)
	err := s.grpc.Invoke(context.Background(), "/test.Stranger/Do", new(emptypb.Empty), new(emptypb.Empty))
	wantStatus(t, err, codes.Unimplemented, "UnknownOperationException")
	if odd.reached {
		t.Error("the handler ran")
	}
}

// TestRowsAgreeWithKeys reads the table of package keyops, which it keeps to itself: what
// the gateway's table says of permissions and audit is documentation, and must be true.
func TestRowsAgreeWithKeys(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../keyops/operation.go", nil, 0)
	must(t, err)
	found := map[string]map[string]string{} // operation → field → value
	ast.Inspect(file, func(n ast.Node) bool {
		pair, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		name, isText := pair.Key.(*ast.BasicLit)
		row, isRow := pair.Value.(*ast.CompositeLit)
		if !isText || !isRow {
			return true
		}
		fields := map[string]string{}
		for _, e := range row.Elts {
			field := e.(*ast.KeyValueExpr)
			fields[field.Key.(*ast.Ident).Name] = field.Value.(*ast.Ident).Name
		}
		found[strings.Trim(name.Value, `"`)] = fields
		return true
	})
	compared := 0
	for name, row := range gateway.MethodRows() {
		if row.Audit == "" {
			continue
		}
		compared++
		operation := operationOf(name)
		want, ok := found[operation]
		if !ok {
			t.Errorf("%s: keyops has no operation %s", name, operation)
			continue
		}
		if (row.Audit == "crypto") != (want["crypto"] == "true") {
			t.Errorf("%s: audit kind %s, keyops says %v", name, row.Audit, want)
		}
		scope := map[string]string{"key": "onKey", "alias and key": "onKey", "account": "onAccount", "": "anyone"}[row.Resource]
		if scope != want["scope"] {
			t.Errorf("%s: on %q, keyops says %v", name, row.Resource, want)
		}
		action := "kms:" + operation
		if operation == "ReEncrypt" {
			action = "kms:ReEncryptFrom, kms:ReEncryptTo"
		}
		if want["scope"] == "anyone" && row.Action != "" || want["scope"] != "anyone" && row.Action != action {
			t.Errorf("%s: permission %q, keyops says %v", name, row.Action, want)
		}
	}
	if compared < 20 || len(found) < 20 {
		t.Errorf("%d rows compared with %d operations", compared, len(found))
	}
}
