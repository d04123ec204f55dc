package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/keyferry/keyferry/keyops/store"
)

//go:embed migrations
var embedded embed.FS

// current is the schema of this release.
var current = mustSchema(embedded)

// schema is a list of migrations; the one at index i leads to version i+1. What was once
// released never changes.
type schema []migration

type migration struct {
	name string
	sql  string
}

func mustSchema(fsys fs.FS) schema {
	s, err := readSchema(fsys)
	if err != nil {
		panic(err) // the files are part of the program
	}
	return s
}

// readSchema reads migrations/0001_name.sql and so on, without a gap.
func readSchema(fsys fs.FS) (schema, error) {
	names, err := fs.Glob(fsys, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var s schema
	for i, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("migrations/%04d_", i+1)) {
			return nil, fmt.Errorf("migration %s: want number %04d", name, i+1)
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		s = append(s, migration{name: name, sql: string(text)})
	}
	return s, nil
}

// querier is *sql.DB or *sql.Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// check refuses a file that a newer release has migrated.
func (s schema) check(ctx context.Context, q querier) error {
	version, err := schemaVersion(ctx, q)
	if err != nil {
		return err
	}
	if version > len(s) {
		return fmt.Errorf("%w: schema %d, this one knows up to %d", store.ErrNewerSchema, version, len(s))
	}
	return nil
}

func schemaVersion(ctx context.Context, q querier) (int, error) {
	var version int
	err := q.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_migration`).Scan(&version)
	return version, wrap("reading the schema's version", err)
}

// migrate brings the schema up to date within tx.
func (s schema) migrate(ctx context.Context, tx *sql.Tx, now time.Time) error {
	_, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migration (version BIGINT PRIMARY KEY, applied TEXT NOT NULL)`)
	if err != nil {
		return wrap("creating the table of migrations", err)
	}
	if err := s.check(ctx, tx); err != nil {
		return err
	}
	version, err := schemaVersion(ctx, tx)
	if err != nil {
		return err
	}
	for _, m := range s[version:] {
		version++
		if _, err := tx.ExecContext(ctx, m.sql); err != nil {
			return wrap("applying "+m.name, err)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO schema_migration (version, applied) VALUES ($1, $2)`,
			version, now.UTC().Format(time.RFC3339))
		if err != nil {
			return wrap("recording "+m.name, err)
		}
	}
	return nil
}
