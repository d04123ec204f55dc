package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/keyops/store"
)

// scanPage is how many rows a scan reads at a time: no cursor stays open while fn runs,
// which not every database allows.
const scanPage = 64

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.writing(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := s.checkLease(ctx, tx); err != nil {
			return err
		}
		return fn(&transaction{ctx: ctx, tx: tx})
	})
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.refused != nil {
		return s.refused
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return wrap("beginning a view", err)
	}
	defer tx.Rollback()
	return fn(&transaction{ctx: ctx, tx: tx, readOnly: true})
}

// writing runs fn in the one write transaction of this process. The end of ctx ends the
// wait for it, not the transaction, so that its outcome stays clear.
func (s *Store) writing(ctx context.Context, fn func(context.Context, *sql.Tx) error) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the store: %w", ctx.Err())
	}
	if err := s.usable(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	err := inTx(ctx, s.write, func(tx *sql.Tx) error { return fn(ctx, tx) })
	if errors.Is(err, store.ErrOutcomeUnknown) {
		s.mu.Lock()
		s.refused = fmt.Errorf("%w after: %w", store.ErrClosed, err)
		s.mu.Unlock()
	}
	return err
}

func (s *Store) usable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.refused
}

// inTx commits what fn did, or nothing.
func inTx(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return wrap("beginning a transaction", err)
	}
	defer tx.Rollback() // also when fn panics; nothing after a commit
	if err := fn(tx); err != nil {
		return err
	}
	return wrapCommit(tx.Commit())
}

// transaction implements store.Tx.
type transaction struct {
	ctx      context.Context
	tx       *sql.Tx
	readOnly bool
}

// Get implements store.Tx.
func (t *transaction) Get(kind store.Kind, id string) (store.Row, error) {
	if err := store.CheckName(kind, id); err != nil {
		return store.Row{}, err
	}
	row := store.Row{Kind: kind, ID: id}
	err := t.tx.QueryRowContext(t.ctx,
		`SELECT version, body, seal FROM store_row WHERE kind = $1 AND id = $2`, string(kind), id,
	).Scan(&row.Version, &row.Body, &row.Seal)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Row{}, fmt.Errorf("%w: %s %s", store.ErrNotFound, kind, id)
	}
	if err != nil {
		return store.Row{}, wrap(fmt.Sprintf("reading %s %s", kind, id), err)
	}
	return row, nil
}

// Put implements store.Tx.
func (t *transaction) Put(row store.Row) error {
	if t.readOnly {
		return store.ErrReadOnly
	}
	if err := row.Check(); err != nil {
		return err
	}
	// The versions are compared by the statement itself, so that this holds at any isolation.
	query := `INSERT INTO store_row (kind, id, version, body, seal) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (kind, id) DO NOTHING`
	if row.Version > 1 {
		query = `UPDATE store_row SET version = $3, body = $4, seal = $5
			WHERE kind = $1 AND id = $2 AND version = $3 - 1`
	}
	n, err := t.exec(query, string(row.Kind), row.ID, int64(row.Version), blob(row.Body), blob(row.Seal))
	if err != nil {
		return wrap(fmt.Sprintf("writing %s %s", row.Kind, row.ID), err)
	}
	if n != 1 {
		return fmt.Errorf("%w: version %d of %s %s does not follow the stored one", store.ErrConflict, row.Version, row.Kind, row.ID)
	}
	return nil
}

// Delete implements store.Tx.
func (t *transaction) Delete(kind store.Kind, id string, version uint64) error {
	if t.readOnly {
		return store.ErrReadOnly
	}
	row, err := t.Get(kind, id)
	if err != nil {
		return err
	}
	if row.Version != version {
		return fmt.Errorf("%w: %s %s has version %d, not %d", store.ErrConflict, kind, id, row.Version, version)
	}
	n, err := t.exec(`DELETE FROM store_row WHERE kind = $1 AND id = $2 AND version = $3`, string(kind), id, int64(version))
	if err != nil {
		return wrap(fmt.Sprintf("deleting %s %s", kind, id), err)
	}
	if n != 1 {
		return fmt.Errorf("%w: %s %s", store.ErrConflict, kind, id)
	}
	return nil
}

func (t *transaction) exec(query string, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Scan implements store.Tx.
func (t *transaction) Scan(kind store.Kind, fn func(store.Row) error) error {
	if err := store.CheckName(kind, "-"); err != nil {
		return err
	}
	after := ""
	for {
		page, err := t.page(kind, after)
		if err != nil {
			return wrap(fmt.Sprintf("reading rows of kind %s", kind), err)
		}
		for _, row := range page {
			if err := fn(row); err != nil {
				return err
			}
			after = row.ID
		}
		if len(page) < scanPage {
			return nil
		}
	}
}

func (t *transaction) page(kind store.Kind, after string) (page []store.Row, err error) {
	rows, err := t.tx.QueryContext(t.ctx,
		`SELECT id, version, body, seal FROM store_row WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3`,
		string(kind), after, scanPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		row := store.Row{Kind: kind}
		if err := rows.Scan(&row.ID, &row.Version, &row.Body, &row.Seal); err != nil {
			return nil, err
		}
		page = append(page, row)
	}
	return page, rows.Err()
}

// Kinds implements store.Tx.
func (t *transaction) Kinds() ([]store.Kind, error) {
	rows, err := t.tx.QueryContext(t.ctx, `SELECT DISTINCT kind FROM store_row ORDER BY kind`)
	if err != nil {
		return nil, wrap("listing kinds", err)
	}
	defer rows.Close()
	var kinds []store.Kind
	for rows.Next() {
		var kind store.Kind
		if err := rows.Scan(&kind); err != nil {
			return nil, wrap("listing kinds", err)
		}
		kinds = append(kinds, kind)
	}
	if err := rows.Err(); err != nil {
		return nil, wrap("listing kinds", err)
	}
	return kinds, nil
}

// blob keeps an empty value from becoming NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
