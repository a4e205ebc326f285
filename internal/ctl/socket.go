package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the name of the control socket in the run directory.
const SocketName = "control.sock"

// Modes of what Listen creates: anybody may look into the run directory, owner and group may open the socket.
const (
	runDirMode = 0o755
	socketMode = 0o660
)

// Listen makes the run directory and the control socket at path. What a dead daemon left there is removed; a daemon that
// answers there is an error.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), runDirMode); err != nil {
		return nil, fmt.Errorf("control socket: %w; set run_dir to a directory that can be created", err)
	}
	l, err := bind(path)
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path); err == nil {
			l, err = bind(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The umask has taken its part of the mode given at bind; what it took is given back.
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// bind creates the socket with its mode: on Linux the mode of an unbound socket becomes that of the file
// (unix_bind: S_IFSOCK | inode mode & ~umask), so that at no moment more may open it than shall.
func bind(path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}}
	return lc.Listen(context.Background(), "unix", path)
}

// removeStale removes the socket of a daemon that is gone. Anything that is not a socket, or that answers, stays.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is no socket; remove it or set another run_dir", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("another uplinkd answers on %s; stop it first: systemctl stop uplinkd", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s is there already, and whether its owner lives is unknown: %w", path, err)
	}
	return os.Remove(path)
}

// peer is who is at the other end of a connection, as the kernel noted when it was made (SO_PEERCRED, unix(7)).
type peer struct {
	uid   uint32
	known bool
}

func peerOf(c net.Conn) (p peer) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return p
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = peer{uid: cred.Uid, known: true}
		}
	})
	return p
}

// mayAct reports whether the peer may change something: root or the daemon's own user.
func (p peer) mayAct(self int) bool {
	return p.known && (p.uid == 0 || int(p.uid) == self)
}

// bounded is a listener with at most as many connections at a time as it has slots; more wait in the kernel's queue.
type bounded struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newBounded(l net.Listener, slots int) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, slots), closed: make(chan struct{})}
}

// conn is a connection that knows its peer and gives its slot back when it is closed.
type conn struct {
	net.Conn
	peer    peer
	release func()
}

// Accept waits for a slot, then for a connection.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &conn{Conn: c, peer: peerOf(c), release: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close closes the listener and ends a waiting Accept.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// Close closes the connection.
func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
