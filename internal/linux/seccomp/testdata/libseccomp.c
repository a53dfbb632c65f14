/*
 * Makes filters by libseccomp for libseccomp_test.go, which compares them with ours. It reads lines and answers each with lines:
 *
 *   name NAME              "number N..." by architecture, in the order of archs below; negative where there is none
 *   filter ACTION          begins a filter with a default action (SCMP_ACT_*, a number)
 *   arch INDEX             adds an architecture
 *   rule ACTION NAME N (ARG OP A B)*N
 *   end                    "error LINE ERRNO"* for rules that were not taken, "insn CODE JT JF K"*, "end"
 */
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint32_t archs[] = {
	SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_X32, SCMP_ARCH_AARCH64, SCMP_ARCH_ARM, SCMP_ARCH_MIPSEL, SCMP_ARCH_MIPSEL64,
	SCMP_ARCH_MIPSEL64N32, SCMP_ARCH_PPC64LE, SCMP_ARCH_RISCV64,
};
#define ARCHS (sizeof(archs) / sizeof(*archs))

static void die(const char *what)
{
	fprintf(stderr, "libseccomp.c: %s\n", what);
	exit(1);
}

static void export(scmp_filter_ctx ctx)
{
	struct sock_filter code[8192];
	FILE *f = tmpfile();
	size_t n;

	if (f == NULL || seccomp_export_bpf(ctx, fileno(f)) != 0)
		die("export");
	rewind(f);
	n = fread(code, sizeof(*code), sizeof(code) / sizeof(*code), f);
	fclose(f);
	for (size_t i = 0; i < n; i++)
		printf("insn %u %u %u %u\n", code[i].code, code[i].jt, code[i].jf, code[i].k);
	printf("end\n");
}

static int rule(scmp_filter_ctx ctx)
{
	struct scmp_arg_cmp args[6];
	unsigned action, n, arg, op;
	char name[256];
	int nr;

	if (scanf("%u %255s %u", &action, name, &n) != 3 || n > 6)
		die("bad rule");
	for (unsigned i = 0; i < n; i++) {
		unsigned long a, b;
		if (scanf("%u %u %lu %lu", &arg, &op, &a, &b) != 4)
			die("bad condition");
		args[i] = (struct scmp_arg_cmp){arg, op, a, b};
	}
	nr = seccomp_syscall_resolve_name(name);
	if (nr == __NR_SCMP_ERROR)
		return -ENOENT;
	return seccomp_rule_add_array(ctx, action, nr, n, args);
}

int main(void)
{
	scmp_filter_ctx ctx = NULL;
	char word[16], name[256];
	unsigned value;
	int rc, line = 0;

	while (scanf("%15s", word) == 1) {
		alarm(60); /* contradicting rules can make it loop */
		if (strcmp(word, "name") == 0) {
			if (scanf("%255s", name) != 1)
				die("bad name");
			printf("number");
			for (size_t i = 0; i < ARCHS; i++)
				printf(" %d", seccomp_syscall_resolve_name_arch(archs[i], name));
			printf("\n");
		} else if (strcmp(word, "filter") == 0) {
			if (scanf("%u", &value) != 1 || (ctx = seccomp_init(value)) == NULL)
				die("bad filter");
			if (seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) != 0)
				die("bad architecture action");
			line = 0;
		} else if (strcmp(word, "arch") == 0) {
			if (scanf("%u", &value) != 1 || value >= ARCHS)
				die("bad architecture");
			rc = seccomp_arch_add(ctx, archs[value]);
			if (rc != 0 && rc != -EEXIST)
				die("architecture refused");
		} else if (strcmp(word, "rule") == 0) {
			rc = rule(ctx);
			if (rc != 0)
				printf("error %d %d\n", line, -rc);
			line++;
		} else if (strcmp(word, "end") == 0) {
			export(ctx);
			seccomp_release(ctx);
		} else {
			die("unknown word");
		}
		if (strcmp(word, "end") == 0 || strcmp(word, "name") == 0)
			fflush(stdout);
	}
	return 0;
}
