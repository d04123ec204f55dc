package hsmtest_test

import (
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
)

func TestFakeConforms(t *testing.T) {
	hsmtest.Suite(t, func(t *testing.T) hsmtest.Harness {
		source := hsmtest.NewFake(t, hsmtest.Options{Label: "source"})
		destination := hsmtest.NewFake(t, hsmtest.Options{Label: "destination"})
		return hsmtest.Harness{
			Source: source, Destination: destination,
			Transport: hsmtest.Establish(source, destination, "suite"),
		}
	})
}
