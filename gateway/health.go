package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	kmsv1 "github.com/keyferry/keyferry/proto/keyferry/kms/v1"
)

const (
	// healthAge is for how long one use of the token answers for all probes, so that probing
	// cannot be made a load.
	healthAge = time.Second
	// healthTimeout is after how long a token that does not answer counts as gone.
	healthTimeout = 5 * time.Second
)

// health is grpc.health.v1 over a check that uses the token.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	check    func(context.Context) error
	log      logrus.FieldLogger
	now      func() time.Time
	draining atomic.Bool

	mu      sync.Mutex // held while checking, so that one check answers for all who wait
	checked time.Time  // guarded by mu
	healthy bool       // guarded by mu
}

// serving reports whether the Region can serve, from a check at most healthAge old.
func (h *health) serving() bool {
	if h.draining.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.checked.IsZero() && h.now().Sub(h.checked) < healthAge {
		return h.healthy
	}
	// Not the prober's context: its impatience must not make the token look ill to others.
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	err := h.check(ctx)
	healthy := err == nil
	if h.checked.IsZero() || healthy != h.healthy {
		log := h.log.WithField(fieldStatus, h.word(healthy).String())
		if err != nil {
			log.WithError(err).Error("health changed")
		} else {
			log.Info("health changed")
		}
	}
	h.checked, h.healthy = h.now(), healthy
	return healthy
}

func (h *health) word(serving bool) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if serving {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// healthServices are the names that can be asked for. All depend on the token alike.
var healthServices = []string{
	"",
	kmsv1.KeyService_ServiceDesc.ServiceName,
	kmsv1.CryptoService_ServiceDesc.ServiceName,
	kmsv1.RegionService_ServiceDesc.ServiceName,
	kmsv1.SynchronizationService_ServiceDesc.ServiceName,
}

func known(service string) bool {
	for _, s := range healthServices {
		if s == service {
			return true
		}
	}
	return false
}

// Check answers for one service.
func (h *health) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if !known(r.GetService()) {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: h.word(h.serving())}, nil
}

// List answers for all services.
func (h *health) List(context.Context, *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	resp := &grpc_health_v1.HealthListResponse{Statuses: map[string]*grpc_health_v1.HealthCheckResponse{}}
	word := h.word(h.serving())
	for _, s := range healthServices {
		resp.Statuses[s] = &grpc_health_v1.HealthCheckResponse{Status: word}
	}
	return resp, nil
}

// Watch answers now and whenever the answer changes, until the client or the server goes.
func (h *health) Watch(r *grpc_health_v1.HealthCheckRequest, ss grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN
	tick := time.NewTicker(healthAge)
	defer tick.Stop()
	for {
		word := grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		if known(r.GetService()) {
			word = h.word(h.serving())
		}
		if word != last {
			if err := ss.Send(&grpc_health_v1.HealthCheckResponse{Status: word}); err != nil {
				return err
			}
			last = word
		}
		if h.draining.Load() {
			return status.Error(codes.Unavailable, "the server is stopping")
		}
		select {
		case <-ss.Context().Done():
			return ss.Context().Err()
		case <-tick.C:
		}
	}
}
