// A disk that fails and forgets, for the files of one process below one directory, by LD_PRELOAD.
//
// FAULTY_DIR    the files that are meant: this begins their paths
// FAULTY_ERRNO  a file with two numbers, the errno of writes and that of syncs; 0, or no such file,
//               is a disk that works. A write that fails has written its first half.
// FAULTY_UNDO   a directory: what a write has replaced is kept there until its file is synced, in
//               a file named by the inode; and in a file "names", a line each, what happened to
//               names: "created", "removed" or "renamed" (inode of the directory, the name, a link
//               to what the name was of before or "-", and the old name of what was renamed), and
//               "synced" (inode of the directory)
// FAULTY_CUT    a file with a number: of its syncs of directories the process does not live to see this one
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_SIZE 4096

enum operation { WRITE, SYNC };

// Comes before the bytes that a write has replaced.
struct undo {
    uint64_t offset, length, file_length;
};

static int is_path_meant(const char *path) {
    const char *dir = getenv("FAULTY_DIR");
    return dir != NULL && strncmp(path, dir, strlen(dir)) == 0;
}

static int is_meant(int fd) {
    char name[32], path[PATH_SIZE];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_path_meant(path);
}

static void read_numbers(const char *variable, int numbers[2]) {
    char text[32] = {0};
    int fd = syscall(SYS_openat, AT_FDCWD, getenv(variable), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (read(fd, text, sizeof text - 1) > 0) sscanf(text, "%d %d", &numbers[0], &numbers[1]);
    close(fd);
}

static int error_of(enum operation operation) {
    int errors[2] = {0, 0};
    read_numbers("FAULTY_ERRNO", errors);
    return errors[operation];
}

static void cut_if_due(int fd) {
    static atomic_int syncs;
    int due[2] = {0, 0};
    struct stat file;
    if (fstat(fd, &file) != 0 || !S_ISDIR(file.st_mode)) return;
    int sync = atomic_fetch_add(&syncs, 1) + 1;
    read_numbers("FAULTY_CUT", due);
    if (sync == due[0]) kill(getpid(), SIGKILL);
}

// A test that cannot undo would prove nothing.
static void append(const char *path, const void *data, size_t length) {
    int log = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || syscall(SYS_write, log, data, length) != (long)length) abort();
    close(log);
}

static int undo_path(int fd, char *path, size_t size, struct stat *file) {
    if (fstat(fd, file) != 0 || !S_ISREG(file->st_mode)) return 0;
    snprintf(path, size, "%s/%lu", getenv("FAULTY_UNDO"), (unsigned long)file->st_ino);
    return 1;
}

static void keep(int fd, size_t length, off_t offset) {
    char path[PATH_SIZE];
    struct stat file;
    if (!undo_path(fd, path, sizeof path, &file)) return;
    char *kept = malloc(sizeof(struct undo) + length);
    ssize_t read = syscall(SYS_pread64, fd, kept + sizeof(struct undo), length, offset);
    struct undo undo = {offset, read < 0 ? 0 : read, file.st_size};
    memcpy(kept, &undo, sizeof undo);
    append(path, kept, sizeof undo + undo.length);
    free(kept);
}

static void note_name(const char *line) {
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/names", getenv("FAULTY_UNDO"));
    append(path, line, strlen(line));
}

// Before it happens to a name, so that what is killed in between undoes nothing.
static void keep_name(const char *what, const char *name, const char *old_name) {
    static atomic_uint links;
    char dir[PATH_SIZE], link_path[PATH_SIZE], line[3 * PATH_SIZE];
    struct stat status;
    snprintf(dir, sizeof dir, "%s", name);
    if (stat(dirname(dir), &status) != 0) return;
    unsigned long inode = status.st_ino;
    unsigned number = atomic_fetch_add(&links, 1);
    snprintf(link_path, sizeof link_path, "%s/link-%d-%u", getenv("FAULTY_UNDO"), getpid(), number);
    int is_linked = link(name, link_path) == 0;
    snprintf(line, sizeof line, "%s\t%lu\t%s\t%s\t%s\n", what, inode, name,
             is_linked ? link_path : "-", old_name);
    note_name(line);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    if (is_meant(fd)) {
        int error = error_of(WRITE);
        keep(fd, length, offset);
        if (error != 0) {
            syscall(SYS_pwrite64, fd, data, length / 2, offset);
            errno = error;
            return -1;
        }
    }
    return syscall(SYS_pwrite64, fd, data, length, offset);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (is_meant(fd)) {
        int error = error_of(WRITE);
        keep(fd, length, lseek(fd, 0, SEEK_CUR));
        if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return syscall(SYS_write, fd, data, length);
}

static int sync_by(long call, int fd) {
    int is_ours = is_meant(fd);
    int error = is_ours ? error_of(SYNC) : 0;
    if (error != 0) {
        errno = error;
        return -1;
    }
    cut_if_due(fd);
    int result = syscall(call, fd);
    if (result != 0) return result;
    char path[PATH_SIZE], line[64];
    struct stat file;
    if (undo_path(fd, path, sizeof path, &file)) {
        if (is_ours) syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    } else if (S_ISDIR(file.st_mode)) {
        // The one above FAULTY_DIR too: it has its name.
        snprintf(line, sizeof line, "synced\t%lu\n", (unsigned long)file.st_ino);
        note_name(line);
    }
    return result;
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }

static int open_by(const char *path, int flags, va_list arguments) {
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
    if (flags & O_CREAT && is_path_meant(path) && access(path, F_OK) != 0) {
        keep_name("created", path, "-");
    }
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int fd = open_by(path, flags, arguments);
    va_end(arguments);
    return fd;
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int fd = open_by(path, flags, arguments);
    va_end(arguments);
    return fd;
}

int mkdir(const char *path, mode_t mode) {
    if (is_path_meant(path) && access(path, F_OK) != 0) keep_name("created", path, "-");
    return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int unlink(const char *path) {
    if (is_path_meant(path)) keep_name("removed", path, "-");
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int rename(const char *from, const char *to) {
    if (is_path_meant(from)) keep_name("renamed", to, from);
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
