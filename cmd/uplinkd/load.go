package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"uplinkd/internal/config"
	"uplinkd/internal/ctl"
)

// loadConfig reads the configuration at path and in conf.d/*.toml beside it, in the order of their names. Mistakes in
// the text are of type config.Errors.
func loadConfig(path string) (*config.Config, error) {
	files, err := configFiles(path)
	if err != nil {
		return nil, err
	}
	return config.Parse(files...)
}

func configFiles(path string) ([]config.File, error) {
	main, err := readConfig(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; write one (see uplinkd.toml(5)) or name another with --config", err)
		}
		return nil, err
	}
	files := []config.File{main}
	more, err := filepath.Glob(filepath.Join(escapeGlob(filepath.Dir(path)), "conf.d", "*.toml"))
	if err != nil {
		return nil, err
	}
	for _, name := range more { // Glob sorts
		f, err := readConfig(name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// readConfig reads a file, at most as much of it as the parser takes: /dev/zero is a file too.
func readConfig(path string) (config.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return config.File{}, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxFileSize+1))
	if err != nil {
		return config.File{}, fmt.Errorf("read the configuration: %w", err)
	}
	return config.File{Name: path, Data: data}, nil
}

// escapeGlob makes a directory's name match only itself in filepath.Glob.
func escapeGlob(dir string) string {
	out := make([]byte, 0, len(dir))
	for i := range len(dir) {
		if c := dir[i]; c == '*' || c == '?' || c == '[' || c == '\\' {
			out = append(out, '\\')
		}
		out = append(out, dir[i])
	}
	return string(out)
}

// failConfig reports an error of loadConfig, a line per mistake.
func (env *environment) failConfig(err error) int {
	env.fail(err)
	return exitUsage
}

// client returns a client of the daemon, found by --socket or the configuration. A configuration that cannot be used
// does not matter here: at two in the morning `status` must work beside a half-edited file.
func (env *environment) client() *ctl.Client {
	cfg := &config.Config{RunDir: config.DefaultRunDir}
	if env.socket == "" {
		files, err := configFiles(env.config)
		if err == nil {
			cfg.RunDir = cmp.Or(config.RunDir(files...), cfg.RunDir)
			_, err = config.Parse(files...)
		}
		switch {
		case err == nil:
		case env.config != defaultConfig || !errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(env.stderr, "uplinkd: %s is of no use (see: uplinkd check %[1]s), so this asks the daemon at %[2]s; to ask another: --socket\n", printable(env.config), env.socketOf(cfg))
		}
	}
	return ctl.Dial(env.socketOf(cfg))
}

// socketOf is where the daemon with configuration cfg answers.
func (env *environment) socketOf(cfg *config.Config) string {
	if env.socket != "" {
		return env.socket
	}
	return filepath.Join(cfg.RunDir, ctl.SocketName)
}
