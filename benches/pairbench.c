/* Times several commands round-robin, so that a drifting machine hits all alike.
 *
 * usage: pairbench [-t] [-k] RUNS CMD [ARG..] -- CMD [ARG..] -- ...
 *        pairbench [-t] [-k] RUNS -f PLAN
 *
 * A plan has one directive per line (words split at blanks, no quoting):
 *   row LABEL             begins one thing to compare; all rows run once per round
 *   setup CMD..           once before all rounds, untimed (a container to exec into)
 *   before CMD..          each round before the timed steps, untimed
 *   time NAME CMD..       a timed step; several of them are also summed as "total"
 *   burst NAME N CMD..    a timed step: N at once, until the last has ended
 *   reap NAME PIDFILE     a timed step: until the process in PIDFILE, which has
 *                         been orphaned to us, is gone (what an engine's shim awaits)
 *   after CMD..           each round after the timed steps, untimed
 *   rescue CMD..          only after a round in which a step failed, untimed
 *   teardown CMD..        once after all rounds, untimed
 * In a word "@" becomes the round's number and "%" the number within a burst.
 *
 * Each round takes the rows in a new (seeded) order, so that no row always
 * inherits the caches of the same predecessor; -k keeps the order in which they
 * were given. Two rounds warm up, uncounted; a row that fails in setup or in
 * both is dropped, and its last words are shown.
 * GAP=N in the environment idles N ms, untimed, before each timed step but reap:
 * it shows waits for RCU grace periods that tight loops hide.
 *
 * Per step: wall min, median and p95, cpu (user+sys of it and what it reaped)
 * median, peak RSS (of all it ran, and never below that of this program: tally.c
 * measures a runtime alone), runs that failed (left out of the figures), and against the
 * first row's step of the same name: the ratio of the minima and the median of
 * the per-round ratios. -t prints these as tab separated values. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM 2
#define MAXROWS 16
#define MAXSTEPS 24
#define MAXARGS 64
extern char **environ;

enum kind { SETUP, BEFORE, TIME, BURST, REAP, AFTER, RESCUE, TEARDOWN };
struct step {
  enum kind kind;
  const char *name;
  char *argv[MAXARGS];
  int count;
  double *wall, *cpu; /* per round, ms; wall < 0: not taken */
  long rss;
  int bad;
};
struct row {
  const char *label;
  struct step step[MAXSTEPS];
  int steps, warm_bad, dropped;
  char why[240];
};
static struct row rows[MAXROWS];
static int nrows, runs, gap;
static int errfd = -1;
static posix_spawn_file_actions_t quiet, tell;

static void die(const char *m) { fprintf(stderr, "pairbench: %s\n", m); exit(2); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6; }
static double used(const struct rusage *r) { return (r->ru_utime.tv_sec + r->ru_stime.tv_sec) * 1e3 + (r->ru_utime.tv_usec + r->ru_stime.tv_usec) / 1e3; }

static char *filled(const char *word, int round, int nth) {
  char b[4096]; size_t n = 0;
  for (; *word && n < sizeof b - 16; word++)
    if (*word == '@') n += sprintf(b + n, "%d", round);
    else if (*word == '%') n += sprintf(b + n, "%d", nth);
    else b[n++] = *word;
  b[n] = 0;
  return strdup(b);
}
static pid_t spawn(struct step *s, int round, int nth, posix_spawn_file_actions_t *fa) {
  char *a[MAXARGS]; int m = 0; pid_t p;
  for (; s->argv[m]; m++) a[m] = filled(s->argv[m], round, nth);
  a[m] = 0;
  int e = posix_spawnp(&p, a[0], fa, 0, a, environ);
  if (e && errfd >= 0) dprintf(errfd, "%s: %s\n", a[0], strerror(e));
  while (m--) free(a[m]);
  return e ? -1 : p;
}
static int ended_well(pid_t p, struct rusage *ru) {
  int st;
  if (p < 0) return 0;
  while (wait4(p, &st, 0, ru) < 0) if (errno != EINTR) return 0;
  return st == 0;
}
/* The orphan named by a pid file: gone within 10 s? */
static int reaped(const char *word, int round, double *took, struct rusage *ru) {
  char *path = filled(word, round, 0), b[32] = "";
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  free(path);
  if (fd < 0) return 0;
  ssize_t n = read(fd, b, sizeof b - 1);
  close(fd);
  pid_t p = n > 0 ? atoi(b) : 0;
  if (p <= 0) return 0;
  double t = now();
  int pf = syscall(SYS_pidfd_open, p, 0);
  if (pf >= 0) {
    struct pollfd q = {pf, POLLIN, 0};
    int r = poll(&q, 1, 10000);
    close(pf);
    if (r != 1) return 0;
  }
  int st;
  wait4(p, &st, 0, ru); /* ECHILD when somebody else was its reaper: gone all the same */
  *took = now() - t;
  return 1;
}
static int untimed(struct row *r, enum kind k, int round, int must) {
  struct rusage ru;
  for (int i = 0; i < r->steps; i++)
    if (r->step[i].kind == k && !ended_well(spawn(&r->step[i], round, 0, &tell), &ru) && must) return 0;
  return 1;
}
static void last_words(struct row *r) {
  char b[4096];
  off_t n = lseek(errfd, 0, SEEK_END), from = n > (off_t)sizeof b - 1 ? n - (off_t)sizeof b + 1 : 0;
  ssize_t g = pread(errfd, b, sizeof b - 1, from);
  if (g < 0) g = 0;
  while (g && (b[g - 1] == '\n' || b[g - 1] == ' ')) g--;
  b[g] = 0;
  char *l = strrchr(b, '\n');
  snprintf(r->why, sizeof r->why, "%.200s", !g ? "failed without a word" : l ? l + 1 : b);
  for (char *p = r->why; *p; p++) if ((unsigned char)*p < 32) *p = ' ';
}
static void idle(void) {
  if (!gap) return;
  struct timespec t = {gap / 1000, gap % 1000 * 1000000L};
  while (nanosleep(&t, &t) && errno == EINTR) ;
}
/* One round of one row. round < 0: warm-up. */
static void go(struct row *r, int round) {
  static pid_t *many;
  int n = round + WARM, ok = 1;
  posix_spawn_file_actions_t *fa = round < 0 ? &tell : &quiet;
  if (round < 0) { if (ftruncate(errfd, 0)) die("ftruncate"); }
  ok = untimed(r, BEFORE, n, 1);
  for (int i = 0; i < r->steps; i++) {
    struct step *s = &r->step[i];
    struct rusage ru = {0};
    double t = 0, cpu = 0;
    int good = 0;
    if (s->kind != TIME && s->kind != BURST && s->kind != REAP) continue;
    if (ok && s->kind == TIME) {
      idle(); t = now();
      good = ended_well(spawn(s, n, 0, fa), &ru);
      t = now() - t; cpu = used(&ru);
    } else if (ok && s->kind == BURST) {
      if (!(many = realloc(many, s->count * sizeof *many))) die("out of memory");
      idle(); t = now(); good = 1;
      for (int j = 0; j < s->count; j++) many[j] = spawn(s, n, j, fa);
      for (int j = 0; j < s->count; j++) {
        struct rusage one = {0};
        good &= ended_well(many[j], &one);
        cpu += used(&one);
        if (one.ru_maxrss > ru.ru_maxrss) ru.ru_maxrss = one.ru_maxrss;
      }
      t = now() - t;
    } else if (ok) {
      good = reaped(s->argv[0], n, &t, &ru);
      cpu = used(&ru);
    }
    ok &= good;
    if (round < 0) continue;
    s->wall[round] = good ? t : -1; s->cpu[round] = cpu;
    if (ru.ru_maxrss > s->rss) s->rss = ru.ru_maxrss;
    if (!good) s->bad++;
  }
  if (round < 0 && !ok) { r->warm_bad++; last_words(r); }
  if (!ok) untimed(r, RESCUE, n, 0);
  untimed(r, AFTER, n, 0);
  /* Container processes that a command has ended: ours to reap, as a shim does. */
  while (waitpid(-1, 0, WNOHANG) > 0) ;
}

static int up(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }
/* Quantile of the n values that are >= 0; -1 when there is none. */
static double quant(const double *v, int n, double p) {
  double *w = malloc(n * sizeof *w); int k = 0;
  for (int i = 0; i < n; i++) if (v[i] >= 0) w[k++] = v[i];
  qsort(w, k, sizeof *w, up);
  double r = k ? w[(int)(p * (k - 1) + .5)] : -1;
  free(w);
  return r;
}
static struct step *step_named(struct row *r, const char *name) {
  for (int i = 0; i < r->steps; i++) if (r->step[i].wall && !strcmp(r->step[i].name, name)) return &r->step[i];
  return 0;
}
static void sum_up(struct row *r) {
  int timed = 0;
  for (int i = 0; i < r->steps; i++) timed += !!r->step[i].wall;
  if (timed < 2 || r->steps == MAXSTEPS) return;
  struct step *t = &r->step[r->steps];
  t->name = "total"; t->kind = TIME;
  t->wall = calloc(runs, 8); t->cpu = calloc(runs, 8);
  for (int i = 0; i < r->steps; i++) {
    struct step *s = &r->step[i];
    if (!s->wall) continue;
    if (s->rss > t->rss) t->rss = s->rss;
    for (int j = 0; j < runs; j++) {
      t->wall[j] = t->wall[j] < 0 || s->wall[j] < 0 ? -1 : t->wall[j] + s->wall[j];
      t->cpu[j] += s->cpu[j];
    }
  }
  for (int j = 0; j < runs; j++) t->bad += t->wall[j] < 0;
  r->steps++;
}
static void print(int tsv) {
  int base = 0;
  double *x = malloc(runs * sizeof *x);
  while (base < nrows - 1 && rows[base].dropped) base++;
  for (int i = 0; i < nrows; i++) {
    struct row *r = &rows[i];
    if (r->dropped) {
      if (tsv) printf("%s\t-\t0\t0\t-\t-\t-\t-\t-\t-\t-\t%s\n", r->label, r->why);
      else printf("%-24.24s left out: %s\n", r->label, r->why);
      continue;
    }
    for (int k = 0; k < r->steps; k++) {
      struct step *s = &r->step[k], *b = s->wall ? step_named(&rows[base], s->name) : 0;
      if (!s->wall) continue;
      double min = quant(s->wall, runs, 0), med = quant(s->wall, runs, .5), p95 = quant(s->wall, runs, .95);
      double xmin = -1, xmed = -1;
      if (b) {
        for (int j = 0; j < runs; j++) x[j] = s->wall[j] >= 0 && b->wall[j] > 0 ? s->wall[j] / b->wall[j] : -1;
        xmed = quant(x, runs, .5); xmin = min >= 0 && quant(b->wall, runs, 0) > 0 ? min / quant(b->wall, runs, 0) : -1;
      }
      if (tsv)
        printf("%s\t%s\t%d\t%d\t%.4f\t%.4f\t%.4f\t%.4f\t%ld\t%.4f\t%.4f\t\n", r->label, s->name, runs, s->bad, min, med, p95, quant(s->cpu, runs, .5), s->rss, xmin, xmed);
      else
        printf("%-24.24s %-8.8s wall min %8.3f med %8.3f p95 %8.3f ms  cpu %7.3f ms  rss %6ld KiB  x%.2f min x%.2f med%s\n", r->label, s->name, min, med, p95, quant(s->cpu, runs, .5), s->rss, xmin, xmed, s->bad ? "  FAILED RUNS" : "");
      if (s->bad && !tsv) printf("%-24.24s %d of %d runs failed\n", "", s->bad, runs);
    }
  }
  free(x);
}

static struct step *add(enum kind k, const char *name) {
  if (!nrows) die("the plan must begin with a row");
  struct row *r = &rows[nrows - 1];
  if (r->steps >= MAXSTEPS - 1) die("too many steps");
  struct step *s = &r->step[r->steps++];
  s->kind = k; s->name = name;
  if (k == TIME || k == BURST || k == REAP) s->wall = calloc(runs, 8), s->cpu = calloc(runs, 8);
  return s;
}
static struct row *new_row(const char *label) {
  if (nrows == MAXROWS) die("too many rows");
  rows[nrows].label = label;
  return &rows[nrows++];
}
static void read_plan(const char *path) {
  static const char *verb[] = {"setup", "before", "time", "burst", "reap", "after", "rescue", "teardown"};
  FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
  char line[8192];
  if (!f) die("cannot open the plan");
  while (fgets(line, sizeof line, f)) {
    char *w[MAXARGS + 4]; int n = 0;
    for (char *p = strtok(line, " \t\n"); p && n < MAXARGS; p = strtok(0, " \t\n")) w[n++] = strdup(p);
    if (!n || w[0][0] == '#') continue;
    if (!strcmp(w[0], "row") && n == 2) { new_row(w[1]); continue; }
    unsigned k = 0;
    while (k < sizeof verb / sizeof *verb && strcmp(verb[k], w[0])) k++;
    int skip = k == TIME || k == REAP ? 2 : k == BURST ? 3 : 1;
    if (k > TEARDOWN || n <= skip) die("a line of the plan is not understood");
    struct step *s = add(k, skip > 1 ? w[1] : w[0]);
    if (k == BURST && (s->count = atoi(w[2])) < 1) die("burst needs a count");
    for (int i = skip; i < n; i++) s->argv[i - skip] = w[i];
  }
  if (f != stdin) fclose(f);
}
int main(int c, char **v) {
  int tsv = 0, keep = 0;
  for (; c > 1 && v[1][0] == '-'; c--, v++)
    if (!strcmp(v[1], "-t")) tsv = 1;
    else if (!strcmp(v[1], "-k")) keep = 1;
    else break;
  if (c < 3 || (runs = atoi(v[1])) < 1) die("usage: pairbench [-t] [-k] RUNS (-f PLAN | CMD [ARG..] [-- CMD [ARG..]]..)");
  if (getenv("GAP")) gap = atoi(getenv("GAP"));
  v += 2; c -= 2;
  if (!strcmp(v[0], "-f")) { if (c != 2) die("-f takes one plan"); read_plan(v[1]); }
  else for (int i = 0, s = 0; i <= c; i++) if (i == c || !strcmp(v[i], "--")) {
    if (i == s || i - s >= MAXARGS) die("an empty or too long command");
    new_row(v[s]);
    memcpy(add(TIME, "run")->argv, v + s, (i - s) * sizeof *v);
    s = i + 1;
  }
  if (!nrows) die("nothing to run");
  /* Container processes outlive the command that made them; like a shim we adopt them. */
  if (prctl(PR_SET_CHILD_SUBREAPER, 1)) die("PR_SET_CHILD_SUBREAPER");
  if ((errfd = memfd_create("stderr", MFD_CLOEXEC)) < 0) die("memfd_create");
  if (fcntl(errfd, F_SETFL, O_APPEND)) die("F_SETFL");
  for (int i = 0; i < 2; i++) {
    posix_spawn_file_actions_t *fa = i ? &tell : &quiet;
    posix_spawn_file_actions_init(fa);
    posix_spawn_file_actions_addopen(fa, 0, "/dev/null", O_RDONLY, 0);
    if (getenv("SHOW")) continue;
    posix_spawn_file_actions_addopen(fa, 1, "/dev/null", O_WRONLY, 0);
    if (i) posix_spawn_file_actions_adddup2(fa, errfd, 2);
    else posix_spawn_file_actions_addopen(fa, 2, "/dev/null", O_WRONLY, 0);
  }
  for (int i = 0; i < nrows; i++) {
    if (ftruncate(errfd, 0)) die("ftruncate");
    if (!untimed(&rows[i], SETUP, 0, 1)) { rows[i].dropped = 1; last_words(&rows[i]); }
  }
  srand(1);
  for (int r = -WARM; r < runs; r++) {
    int order[MAXROWS];
    for (int i = 0; i < nrows; i++) {
      int j = keep ? i : rand() % (i + 1);
      order[i] = order[j]; order[j] = i;
    }
    for (int i = 0; i < nrows; i++) {
      struct row *w = &rows[order[i]];
      if (w->dropped) continue;
      go(w, r);
      if (r == -1 && w->warm_bad == WARM) w->dropped = 1;
    }
  }
  for (int i = 0; i < nrows; i++) { untimed(&rows[i], TEARDOWN, 0, 0); sum_up(&rows[i]); }
  print(tsv);
  return 0;
}
