//! The birth of a job's process: a child that shares this process's memory until it becomes a program, as `vfork` and
//! `posix_spawn` have it, but one that enters its control group at birth.
//!
//! A fork copies page tables, and both sides then fault in every page that they write. Entering the group at birth matters
//! more: moving a process later waits for an RCU grace period, 5 to 20 ms on an idle machine.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::Pid;

use super::{Forked, Plan, become_job, forked, leave};

/// From `linux/sched.h`; the libc crate's own constant does not fit its type everywhere.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Starts the job that `plan` describes, in the control group (v2) if one is given. What fails between birth and exec goes
/// through the plan's failure pipe.
pub(crate) fn bear(plan: &Plan, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Pid> {
    match shared::clone(plan, cgroup) {
        Ok(child) => Ok(child),
        // A sandbox or a processor without it.
        Err(_) => match fork_into(cgroup)? {
            Forked::Child => become_job(plan),
            Forked::Parent(child) => Ok(child),
        },
    }
}

/// Forks, into the control group if one is given.
fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let Some(cgroup) = cgroup else { return super::fork() };
    // SAFETY: all fields are integers, for which zero is valid and means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: the structure outlives the call and its size is told; without CLONE_VM this is a fork, and the process has
    // one thread.
    match forked(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) }) {
        // A kernel or a sandbox without it: the family is followed by its parents alone.
        Err(_) => super::fork(),
        other => other,
    }
}

/// What the child does, on a stack of its own. Nothing may unwind out of it: there is no frame below.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "others fork"))]
extern "C" fn live(plan: &Plan) -> ! {
    let _unwound = catch_unwind(AssertUnwindSafe(|| become_job(plan)));
    leave(127)
}

#[cfg(not(target_arch = "x86_64"))]
mod shared {
    use super::{BorrowedFd, Pid, Plan, io};

    pub(super) fn clone(_plan: &Plan, _cgroup: Option<BorrowedFd<'_>>) -> io::Result<Pid> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_arch = "x86_64")]
mod shared {
    use super::{AsRawFd as _, BorrowedFd, CLONE_INTO_CGROUP, Forked, Pid, Plan, forked, io, leave, live};

    /// From `linux/sched.h`, as above.
    const CLONE_VM: u64 = 0x100;
    const CLONE_VFORK: u64 = 0x4000;

    /// The child's stack until its exec: what it calls needs some KiB, formatting an error a few more.
    const STACK_BYTES: usize = 128 << 10;

    pub(super) fn clone(plan: &Plan, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Pid> {
        // Words of 16 bytes, because the stack's end must be aligned so.
        let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
        // SAFETY: all fields are integers, for which zero is valid and means "not used".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_VM | CLONE_VFORK;
        args.exit_signal = libc::SIGCHLD as u64;
        args.stack = stack.as_mut_ptr() as u64;
        args.stack_size = STACK_BYTES as u64;
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
        }
        let result = call(&mut args, plan);
        drop(stack);
        if result < 0 {
            return Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO)));
        }
        match forked(result)? {
            Forked::Parent(child) => Ok(child),
            Forked::Child => leave(127),
        }
    }

    /// The child's id, or an error number below zero.
    fn call(args: &mut libc::clone_args, plan: &Plan) -> i64 {
        let mut result = libc::SYS_clone3;
        // SAFETY: this process has one thread, and with CLONE_VFORK it sleeps until the child has become a program or has
        // left: nobody else touches the memory that they share, and stack and plan outlive the child's use of them. The
        // child runs on its own stack from the first instruction, never returns, and comes into `live` as from a call:
        // aligned stack, the plan in the first argument's register. What it changes of the process (user, session, limits,
        // descriptors) is its own.
        unsafe {
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r12",
                "call r13",
                "ud2",
                "2:",
                inlateout("rax") result,
                in("rdi") &raw mut *args,
                in("rsi") size_of::<libc::clone_args>(),
                in("r12") std::ptr::from_ref(plan),
                in("r13") live as extern "C" fn(&Plan) -> !,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        result
    }
}
