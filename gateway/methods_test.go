package gateway_test

import (
	"context"
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
