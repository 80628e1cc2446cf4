// The entry of the fused loop, and the one place that knows which anchor and which moves there are.
#include "advance/anchor.hpp"
#include "advance/moves.hpp"
#include "advance/replicates.hpp"
#include "advance/walk.hpp"
#include "entries.hpp"

namespace mfld {
namespace {

template <class T, class Anchor, class Moves>
Reached advance_with(const Problem<T>& problem, Workspace<T>& memory, const Stretch<T>& stretch,
                     const mfld_execution& execution) {
  return Advance<T, Anchor, Moves>(problem, memory, stretch, execution).run();
}

template <class T, class Anchor, class Moves>
constexpr Method<T> method_of = {scheme_of<Anchor, Moves>, &advance_with<T, Anchor, Moves>};

template <class T, class Anchor>
constexpr Method<T> methods_with[] = {
    /*MFLD_AFFINE*/ method_of<T, Anchor, AffineMoves<T>>,
    /*MFLD_BAOAB*/ method_of<T, Anchor, BaoabMoves<T>>,
    /*MFLD_PRECONDITIONED*/ method_of<T, Anchor, PreconditionedMoves<T>>,
};

template <class T>
constexpr const Method<T>* methods[] = {
    /*MFLD_FULL_BATCH*/ methods_with<T, NoAnchor<T>>,
    /*MFLD_MINIBATCH*/ methods_with<T, NoAnchor<T>>,
    /*MFLD_SVRG*/ methods_with<T, Svrg<T>>,
    /*MFLD_SARAH*/ methods_with<T, Sarah<T>>,
    /*MFLD_STREAM*/ methods_with<T, NoAnchor<T>>,
};

}  // namespace

template <class T>
int advance(const mfld_network* network, const mfld_loss* loss, const mfld_samples* samples, void* particles,
            std::int64_t n_replicates, std::int64_t n_particles, std::int64_t n_steps, mfld_estimator* estimator,
            mfld_dynamics* dynamics, const mfld_coefficients* coefficients, const mfld_domain* domain,
            const mfld_noise* noises, mfld_report* report, const mfld_execution* execution) {
  return guarded([&] {
    const Problem<T> problem(*network, *loss, *samples, *domain, n_particles, *estimator);
    return Replicates<T>(problem, methods<T>[estimator->kind][dynamics->kind], particles, n_replicates, n_steps,
                         *estimator, *dynamics, coefficients, noises, *execution)
        .run(*report);
  });
}

#define MFLD_INSTANTIATE(T)                                                                                      \
  template int advance<T>(const mfld_network*, const mfld_loss*, const mfld_samples*, void*, std::int64_t,       \
                          std::int64_t, std::int64_t, mfld_estimator*, mfld_dynamics*, const mfld_coefficients*, \
                          const mfld_domain*, const mfld_noise*, mfld_report*, const mfld_execution*);
MFLD_INSTANTIATE(float)
MFLD_INSTANTIATE(double)
#undef MFLD_INSTANTIATE

}  // namespace mfld
