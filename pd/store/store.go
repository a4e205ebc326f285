// Package store keeps what must survive a restart in files that people can read: leases, DUIDs and IAIDs, the planner's ledger.
// One directory, one writer (a lock sees to that), one JSON file per thing: {"version": 1, "data": {...}}.
//
// A file is replaced as a whole or not at all, whenever the power goes. A file that cannot be read is never an end: it is
// set aside under another name for the bug report, and the daemon starts without it.
//
// It is not a database, and nothing here decides what is worth keeping or how long.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrCorrupt is in the error for a file that was there but cannot be used.
var ErrCorrupt = errors.New("unusable state file")

// ErrLocked is in the error of Open when another process has the directory open.
var ErrLocked = errors.New("another uplinkd is running")

// errReadOnly is what writing to a directory from ReadOnly gives.
var errReadOnly = errors.New("opened for reading only")

const (
	lockName   = "lock"
	tempSuffix = ".tmp"
)

// Dir is an open state directory. Its methods may be called from several goroutines.
type Dir struct {
	path string
	root *os.Root
	lock *os.File // nil: read only

	mu       sync.Mutex // one writer at a time: names of temporary files are fixed
	unsynced bool       // a rename may not have reached the disk yet: do not trust that a file on disk is safe
}

// Open opens the state directory, creating it if need be, and locks it for this process until Close or death. It removes
// what a killed writer has left behind.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, dirError(path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, dirError(path, err)
	}
	lock, err := takeLock(root)
	if err != nil {
		return nil, errors.Join(dirError(path, err), root.Close())
	}
	d := &Dir{path: path, root: root, lock: lock}
	d.removeTemporary()
	return d, nil
}

// CheckMode returns an error if others than the owner can write to the directory, and so choose what uplinkd believes.
func (d *Dir) CheckMode() error {
	info, err := d.root.Stat(".")
	if err != nil {
		return dirError(d.path, err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("state directory %s: others can write to it (mode %04o): chmod go-w %s", d.path, mode, d.path)
	}
	return nil
}

// ReadOnly opens the state directory of a daemon that may be running, for looking only: it takes no lock, and no method
// of the Dir changes a file. The error is fs.ErrNotExist if there is no such directory.
func ReadOnly(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, dirError(path, err)
	}
	return &Dir{path: path, root: root}, nil
}

// Close unlocks the directory.
func (d *Dir) Close() error {
	err := d.root.Close()
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// dirError says what is wrong with the directory and what to do.
func dirError(path string, err error) error {
	switch err = bare(err); {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("state directory %s: %w: run as root or set state_dir", path, err)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("state directory %s: %w: set state_dir", path, err)
	}
	return fmt.Errorf("state directory %s: %w", path, err)
}

// takeLock locks the file "lock", which holds the process id for the message that the next one gets. The kernel drops the
// lock when the process dies, so the file stays; removing it would let two processes lock two files of one name.
func takeLock(root *os.Root) (*os.File, error) {
	f, err := openRegular(root, lockName, os.O_RDWR|os.O_CREATE)
	if errors.Is(err, errNoFile) {
		return nil, fmt.Errorf("%s is %w: remove it", lockName, err) // it may be another's lock: not ours to set aside
	}
	if err != nil {
		return nil, err
	}
	give(root, f)
	err = tryLock(f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrLocked
		if pid := readPID(f); pid > 0 {
			err = fmt.Errorf("%w (process %d)", ErrLocked, pid)
		}
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// orphanWait is how long a lock may outlive its process. One that is killed while it starts another program leaves that
// with all its files until the moment of exec, so that a restart that is prompt finds the lock taken by nobody.
const orphanWait = 2 * time.Second

// tryLock locks f, or says at once that a process that lives has it.
func tryLock(f *os.File) error {
	for end := time.Now().Add(orphanWait); ; time.Sleep(5 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
		if pid := readPID(f); pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return err
		}
	}
}

// give makes a file that root has made belong to the owner of the directory: the daemon of the systemd unit has a user of
// its own, and has to read what `uplinkd clean`, run by root, has written. systemd gives files to that user only when the
// directory itself is another's. Where it cannot be done (user namespaces, network file systems) the file stays root's.
func give(root *os.Root, f *os.File) {
	dir, err := root.Stat(".")
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if owner, ok := dir.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
		_ = f.Chown(int(owner.Uid), int(owner.Gid))
	}
}

// readPID returns 0 for anything but a number: the file may be anybody's.
func readPID(f *os.File) int {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0) // io.EOF is usual
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// removeTemporary removes the files of writes that did not come to their end. What cannot be removed, a directory for
// one, is no reason not to start.
func (d *Dir) removeTemporary() {
	names, _ := fs.Glob(d.root.FS(), "*"+tempSuffix) // the pattern is a good one
	for _, n := range names {
		_ = d.root.Remove(n)
	}
}

// file is the full name of a file, for messages.
func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }
