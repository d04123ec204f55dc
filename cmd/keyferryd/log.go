package main

import (
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/keyferry/keyferry/cmd/internal/config"
)

// newLog makes the daemon's log. The configuration has been checked.
func newLog(c config.Log, w io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(w)
	level, err := logrus.ParseLevel(c.Level)
	if err != nil {
		level = logrus.InfoLevel
	}
	log.SetLevel(level)
	if c.Format == "text" {
		log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true, TimestampFormat: time.RFC3339Nano})
	} else {
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano})
	}
	return log
}
