/*
 * The world as walmill sees it in a soak, loaded before its libraries (LD_PRELOAD): which bytes a
 * power cut would leave on its disk, and what time it is. world.rs has the other half.
 *
 * SOAK_WORLD names a folder with two files. `synced`: for each sync of a file that the kernel has
 * done, a line with the end of what had been written by then and the file: its number and when it
 * was made, since it may be renamed, and its number given to another. `clock`: nanoseconds by which
 * the wall clock is wrong.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

typedef int (*sync_t)(int);
typedef int (*clock_t_)(clockid_t, struct timespec *);
typedef int (*wait_t)(cnd_t *, mtx_t *, const struct timespec *);

static sync_t real_fsync, real_fdatasync;
static clock_t_ real_clock;
static wait_t real_wait;
static int notes = -1;
static volatile int64_t nothing;
static volatile int64_t *wrong = &nothing;

__attribute__((constructor)) static void begin(void) {
  real_fsync = (sync_t)dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = (sync_t)dlsym(RTLD_NEXT, "fdatasync");
  real_clock = (clock_t_)dlsym(RTLD_NEXT, "clock_gettime");
  real_wait = (wait_t)dlsym(RTLD_NEXT, "cnd_timedwait");
  const char *world = getenv("SOAK_WORLD");
  if (!world) return;
  char path[4096];
  snprintf(path, sizeof path, "%s/synced", world);
  notes = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  snprintf(path, sizeof path, "%s/clock", world);
  int clock = open(path, O_RDONLY | O_CLOEXEC);
  if (clock >= 0) {
    void *page = mmap(NULL, sizeof *wrong, PROT_READ, MAP_SHARED, clock, 0);
    if (page != MAP_FAILED) wrong = page;
    close(clock);
  }
}

static int noted(sync_t real, int fd) {
  struct statx about;
  const unsigned wanted = STATX_TYPE | STATX_SIZE | STATX_INO | STATX_BTIME;
  int known = notes >= 0 && statx(fd, "", AT_EMPTY_PATH, wanted, &about) == 0;
  /* Where what has been written through this descriptor ends. One that has written nothing yet says
   * nothing about that; then the whole file counts. */
  off_t at = lseek(fd, 0, SEEK_CUR);
  long long end = at > 0 ? (long long)at : (long long)about.stx_size;
  int result = real(fd);
  if (result != 0 || !known || !S_ISREG(about.stx_mode)) return result;
  if (!(about.stx_mask & STATX_BTIME)) about.stx_btime.tv_sec = about.stx_btime.tv_nsec = 0;
  char line[128];
  int size = snprintf(line, sizeof line, "%lld %llu %lld %u\n", end,
                      (unsigned long long)about.stx_ino, (long long)about.stx_btime.tv_sec,
                      about.stx_btime.tv_nsec);
  if (write(notes, line, (size_t)size) != size) abort();
  return result;
}

int fsync(int fd) { return noted(real_fsync, fd); }
int fdatasync(int fd) { return noted(real_fdatasync, fd); }

static void add(struct timespec *time, int64_t nanoseconds) {
  int64_t all = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + nanoseconds;
  time->tv_sec = all / 1000000000;
  time->tv_nsec = all % 1000000000;
}

int clock_gettime(clockid_t id, struct timespec *time) {
  /* Something may ask before we have begun. */
  if (!real_clock) real_clock = (clock_t_)dlsym(RTLD_NEXT, "clock_gettime");
  int result = real_clock(id, time);
  if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) add(time, *wrong);
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *to) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
  if (to) *to = now.tv_sec;
  return now.tv_sec;
}

/* A wait until a time of the wall clock, which librdkafka uses: the kernel's own clock is right. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex,
                  const struct timespec *restrict until) {
  struct timespec kernels = *until;
  add(&kernels, -*wrong);
  return real_wait(condition, mutex, &kernels);
}
