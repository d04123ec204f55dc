package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/keyferry/keyferry/keyops/region"
	"github.com/keyferry/keyferry/keyops/store"
)

const (
	// applicationID marks the file in its header: "KFRY".
	applicationID = 0x4b465259
	// busyTimeout bounds the wait for another process's transaction, in milliseconds.
	busyTimeout = "5000"
	// readers is how many views run at once; requests are served from memory, so few do.
	readers = 4
)

// Config says which file to open.
type Config struct {
	Path string           // the database file
	Now  func() time.Time // the clock of the lease; nil means time.Now
}

// Store is one database file. It implements store.Store.
type Store struct {
	path   string
	now    func() time.Time
	schema schema

	write *sql.DB // one connection
	read  *sql.DB // connections that refuse to write
	term  atomic.Uint64
	locks *termLocks

	turn    chan struct{} // holds one value: the right to use write
	mu      sync.RWMutex  // guards refused; held by views while they run
	refused error         // why the store takes no more calls

	closing  sync.Once
	closeErr error // what the first Close returned
}

var _ store.Store = (*Store)(nil)

// Create makes a new store for the instance. It never touches a file that exists: the
// error is then fs.ErrExist. The file appears complete or not at all.
func Create(ctx context.Context, path string, instance region.InstanceID) error {
	err := assemble(path, func(tmp string) error {
		file, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		return withDB(tmp, func(db *sql.DB) error {
			if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
				return wrap("marking the file", err)
			}
			return inTx(ctx, db, func(tx *sql.Tx) error {
				if err := current.migrate(ctx, tx, time.Now()); err != nil {
					return err
				}
				return store.WriteMeta(&transaction{ctx: ctx, tx: tx}, store.Meta{
					Instance: instance,
					StoreID:  uuid.NewString(),
					Created:  time.Now(),
				})
			})
		})
	})
	if err != nil {
		return fmt.Errorf("creating store %s: %w", path, err)
	}
	return nil
}

// Open opens a store that exists. It fails with store.ErrNotStore or store.ErrNewerSchema
// without having changed the file.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg, current)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", cfg.Path, err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config, known schema) (*Store, error) {
	info, err := os.Stat(cfg.Path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", store.ErrNotStore)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("mode %#o lets others in, want 0600", mode)
	}
	s := &Store{path: cfg.Path, now: cfg.Now, schema: known, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	if s.now == nil {
		s.now = time.Now
	}
	if s.write, err = connect(cfg.Path, 1, url.Values{"_txlock": {"immediate"}}); err != nil {
		return nil, err
	}
	if s.read, err = connect(cfg.Path, readers, url.Values{"_pragma": {"query_only(1)"}}); err != nil {
		s.write.Close()
		return nil, err
	}
	if err := s.recognise(ctx); err != nil {
		s.write.Close()
		s.read.Close()
		return nil, err
	}
	s.locks = newTermLocks(cfg.Path + ".lock")
	return s, nil
}

// recognise refuses foreign and newer files, and sets WAL mode only then.
func (s *Store) recognise(ctx context.Context) error {
	var id int64
	err := s.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if notDatabase(err) || err == nil && id != applicationID {
		return store.ErrNotStore
	}
	if err != nil {
		return wrap("reading the file's mark", err)
	}
	if err := s.schema.check(ctx, s.write); err != nil {
		return err
	}
	var mode string
	if err := s.write.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return wrap("setting WAL mode", err)
	}
	if mode != "wal" {
		return fmt.Errorf("setting WAL mode: the file stays in mode %q", mode)
	}
	return nil
}

// connect returns a pool over an existing file.
func connect(path string, conns int, query url.Values) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	query.Set("mode", "rw")
	for _, pragma := range []string{
		"busy_timeout(" + busyTimeout + ")",
		"synchronous(FULL)",
		"foreign_keys(1)",
		"trusted_schema(0)", // who can write the file must not run functions in here
	} {
		query.Add("_pragma", pragma)
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, wrap("opening the file", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// withDB runs fn on a file that nobody else uses yet, and closes it whole.
func withDB(path string, fn func(*sql.DB) error) error {
	db, err := connect(path, 1, url.Values{"_txlock": {"immediate"}})
	if err != nil {
		return err
	}
	return errors.Join(fn(db), db.Close())
}

// assemble builds a file under another name and puts it in place: whole, durable, and
// never over a file that exists.
func assemble(path string, build func(tmp string) error) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fs.ErrExist, err)
	}
	tmp := path + ".new-" + uuid.NewString()
	defer os.Remove(tmp)
	if err := build(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o600); err != nil {
		return err
	}
	if err := syncPath(tmp); err != nil {
		return err
	}
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.closing.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Store) close() error {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if term := s.term.Swap(0); term != 0 && s.refused == nil {
		err = s.release(context.Background(), term)
	}
	s.refused = store.ErrClosed
	return errors.Join(err, s.read.Close(), s.write.Close(), s.locks.close())
}
