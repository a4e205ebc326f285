package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

const (
	fileMode    = 0o600   // leases may contain keys
	maxFile     = 4 << 20 // octets; a ledger of a large site stays below a tenth
	maxSetAside = 10      // unusable versions of one file that are kept
)

// envelope is what every file holds.
type envelope struct {
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// ReadJSON reads the data of file name into v, which is to be discarded after an error. The error is fs.ErrNotExist if
// there is no file, and ErrCorrupt if it is of no use: a directory, a link, not JSON, cut short, or of another version. It
// has been set aside, under a name that the error gives.
func (d *Dir) ReadJSON(name string, version int, v any) error {
	b, err := d.read(name)
	switch {
	case errors.Is(err, errNoFile):
		return d.corrupt(name, err)
	case err != nil:
		return fmt.Errorf("read %s: %w", d.file(name), err)
	}
	if err := decode(b, version, v); err != nil {
		return d.corrupt(name, err)
	}
	return nil
}

// decode reads an envelope.
func decode(b []byte, version int, v any) error {
	if len(b) > maxFile {
		return fmt.Errorf("longer than %d octets", maxFile)
	}
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	if e.Version != version {
		return fmt.Errorf("version %d, this uplinkd reads version %d", e.Version, version)
	}
	if len(e.Data) == 0 || string(e.Data) == "null" {
		return errors.New(`no "data"`)
	}
	return json.Unmarshal(e.Data, v)
}

// read returns at most one octet more than maxFile.
func (d *Dir) read(name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	f, err := openRegular(d.root, name, os.O_RDONLY)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close() // nothing was written
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return b, bare(err)
}

// errNoFile is in the error for something that has the name of a state file and is none.
var errNoFile = errors.New("not a regular file")

// openRegular opens a file. A link is none: os.Root would follow it inside the directory. O_NONBLOCK keeps the open of a
// named pipe, put there in the meantime, from waiting for a writer; regular files do not know it.
func openRegular(root *os.Root, name string, flag int) (*os.File, error) {
	info, err := root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w but a %s", errNoFile, kindOf(info.Mode()))
	}
	if err != nil && !(flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	f, err := root.OpenFile(name, flag|syscall.O_NONBLOCK, fileMode)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w but a %s", errNoFile, kindOf(info.Mode()))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func kindOf(m fs.FileMode) string {
	switch m.Type() {
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeNamedPipe:
		return "named pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}

// corrupt sets the file aside and returns the error that says so.
func (d *Dir) corrupt(name string, cause error) error {
	err := fmt.Errorf("%w %s: %w", ErrCorrupt, d.file(name), cause)
	if d.lock == nil {
		return err
	}
	kept, rerr := d.setAside(name)
	if rerr != nil {
		return fmt.Errorf("%w; setting it aside failed: %w", err, rerr)
	}
	return fmt.Errorf("%w; going on without it, it is kept as %s", err, kept)
}

// setAside renames a file.
func (d *Dir) setAside(name string) (kept string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept = d.freeAside(name)
	if err := d.root.Rename(name, kept); err != nil {
		return "", bare(err)
	}
	return kept, d.syncDir()
}

// freeAside is NAME.corrupt-N with the first N that is free; when none is, the last one is replaced.
func (d *Dir) freeAside(name string) (kept string) {
	for n := 1; n <= maxSetAside; n++ {
		kept = fmt.Sprintf("%s.corrupt-%d", name, n)
		if _, err := d.root.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return kept
}

// Repaired keeps a copy of a file of which its reader does not believe parts, as it does with a file that is damaged as a
// whole, and returns the error that says so. The file itself stays for the rest of it.
func (d *Dir) Repaired(name string, cause error) error {
	err := fmt.Errorf("%w %s: %w", ErrCorrupt, d.file(name), cause)
	if d.lock == nil {
		return err
	}
	kept, kerr := d.copyAside(name)
	if kerr != nil {
		return fmt.Errorf("%w; going on with the rest; keeping a copy failed: %w", err, kerr)
	}
	return fmt.Errorf("%w; going on with the rest, a copy is kept as %s", err, kept)
}

func (d *Dir) copyAside(name string) (kept string, err error) {
	b, err := d.read(name)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	kept = d.freeAside(name)
	return kept, d.replace(kept, b)
}

// SetAside returns the full names of the damaged files that were set aside and are still there.
func (d *Dir) SetAside() ([]string, error) {
	names, err := fs.Glob(d.root.FS(), "*.corrupt-*")
	if err != nil {
		return nil, dirError(d.path, err)
	}
	for i, n := range names {
		names[i] = d.file(n)
	}
	return names, nil
}

// WriteJSON makes v the data of file name. When it returns nil, the new content survives a power cut; when it does not,
// or the process is killed, the file has the old content or the new one. A file that has this content already is left
// alone, which spares flash memory.
func (d *Dir) WriteJSON(name string, version int, v any) error {
	if err := d.write(name, version, v); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return nil
}

func (d *Dir) write(name string, version int, v any) error {
	if d.lock == nil {
		return errReadOnly
	}
	if err := checkName(name); err != nil {
		return err
	}
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(envelope{version, data}, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if len(b) > maxFile {
		return fmt.Errorf("%d octets, want at most %d", len(b), maxFile)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, err := d.read(name); err == nil && bytes.Equal(old, b) && !d.unsynced && d.private(name) {
		return nil
	}
	return d.replace(name, b)
}

// private reports whether nobody but its owner can read a file: somebody may have put a copy in its place.
func (d *Dir) private(name string) bool {
	info, err := d.root.Lstat(name)
	return err == nil && info.Mode() == fileMode
}

// replace puts a new file in the place of an old one: file, then rename, then directory reach the disk in this order.
func (d *Dir) replace(name string, b []byte) error {
	temp := name + tempSuffix
	if err := d.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", d.file(temp), bare(err))
	}
	err := d.writeSynced(temp, b)
	if err == nil {
		err = d.root.Rename(temp, name)
	}
	if err != nil {
		if rerr := d.root.Remove(temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return bare(err)
	}
	return d.syncDir()
}

func (d *Dir) writeSynced(name string, b []byte) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode) // a new one: not a pipe, not through a link
	if err != nil {
		return err
	}
	give(d.root, f)
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir brings renames to the disk; fsync of the file alone does not (fsync(2)).
func (d *Dir) syncDir() error {
	d.unsynced = true
	f, err := d.root.Open(".")
	if err != nil {
		return bare(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	d.unsynced = false
	return nil
}

// checkName keeps names to plain files of the directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > maxName {
		return fmt.Errorf("file name %.80q: want a plain name of 1 to %d octets", name, maxName)
	}
	return nil
}

// maxName leaves room for what setAside and replace append (NAME_MAX is 255).
const maxName = 230

// bare drops operation and path from an error of os or os.Root: they may be relative to the directory, and the caller
// names the full path.
func bare(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
