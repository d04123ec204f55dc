package bearer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/keyferry/keyferry/gateway/reload"
)

// fetchTimeout bounds one fetch of the keys from name lookup to last byte.
const fetchTimeout = 5 * time.Second

func fileReader(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return reload.ReadFile(path, maxSet) }
}

// CheckURL reports what is wrong with a key URL.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("want https://<host>/<path>, without user information")
	}
	return nil
}

// fetcher returns a function that fetches a JWK set. It follows no redirect and no proxy of
// the environment: the operator has named who may say which keys are the issuer's.
func fetcher(address, authorities string) (func(context.Context) ([]byte, error), error) {
	if err := CheckURL(address); err != nil {
		return nil, fmt.Errorf("bearer: key URL: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities != "" {
		text, err := reload.ReadFile(authorities, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("bearer: authorities of the key URL: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("bearer: authorities of the key URL: no certificate in %s", authorities)
		}
	}
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:        config,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, fmt.Errorf("fetching the issuer's keys: %w", err)
		}
		request.Header.Set("Accept", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return nil, fmt.Errorf("fetching the issuer's keys: %w", err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("fetching the issuer's keys: %s answers %s", address, response.Status)
		}
		text, err := io.ReadAll(io.LimitReader(response.Body, maxSet+1))
		if err != nil {
			return nil, fmt.Errorf("fetching the issuer's keys: %w", err)
		}
		if len(text) > maxSet {
			return nil, fmt.Errorf("fetching the issuer's keys: more than %d bytes", maxSet)
		}
		return text, nil
	}, nil
}
