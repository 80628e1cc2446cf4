// NumPy arrays in, kernel calls out: shapes, the interpreter lock, signals, errors. No algorithm lives here.
#include <dlfcn.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "mfld/kernels.h"

namespace py = pybind11;

namespace {

bool cpu_runs(const std::string& isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == "base") return __builtin_cpu_supports("x86-64-v2");
  if (isa == "v3") return __builtin_cpu_supports("x86-64-v3");
  if (isa == "v4") return __builtin_cpu_supports("x86-64-v4");
#endif
  return isa == "base" || isa == "native";
}

// ---- arrays
// ------------------------------------------------------------------------------------------------------------

std::string text(const std::vector<py::ssize_t>& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    out += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  return out + (shape.size() == 1 ? ",)" : ")");
}

// A contiguous array of the wanted precision and shape; -1 stands for any extent.
const void* checked(const py::array& a, const char* name, bool want_double, std::vector<py::ssize_t> shape) {
  const bool right_type = want_double ? py::isinstance<py::array_t<double>>(a) : py::isinstance<py::array_t<float>>(a);
  if (!right_type)
    throw py::type_error(std::string(name) + " must be " + (want_double ? "float64" : "float32") + ", got " +
                         py::str(a.dtype()).cast<std::string>());
  const std::vector<py::ssize_t> got(a.shape(), a.shape() + a.ndim());
  bool fits = got.size() == shape.size();
  for (std::size_t i = 0; fits && i < got.size(); ++i) fits = shape[i] < 0 || shape[i] == got[i];
  if (!fits) throw py::value_error(std::string(name) + " must have shape " + text(shape) + ", got " + text(got));
  if (!(a.flags() & py::array::c_style)) throw py::value_error(std::string(name) + " must be C-contiguous");
  return a.data();
}

void* checked_writable(py::array& a, const char* name, bool want_double, std::vector<py::ssize_t> shape) {
  checked(a, name, want_double, std::move(shape));
  return a.mutable_data();  // throws ValueError for a read-only array
}

bool precision(const py::array& a, const char* name) {
  if (py::isinstance<py::array_t<double>>(a)) return true;
  if (py::isinstance<py::array_t<float>>(a)) return false;
  throw py::type_error(std::string(name) + " must be float32 or float64, got " +
                       py::str(a.dtype()).cast<std::string>());
}

py::array empty(bool want_double, std::vector<py::ssize_t> shape) {
  return want_double ? py::array(py::dtype::of<double>(), std::move(shape))
                     : py::array(py::dtype::of<float>(), std::move(shape));
}

// ---- running a kernel
// -----------------------------------------------------------------------------------------------------

// Lets Python handle signals during a kernel: at most every 50 ms, since taking the interpreter lock may take a while.
class Signals {
 public:
  static int poll(void* self) { return static_cast<Signals*>(self)->check(); }

 private:
  int check() {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return 0;
    next_ = now + std::chrono::milliseconds(50);
    const py::gil_scoped_acquire lock;
    return PyErr_CheckSignals();  // non-zero: an exception is set
  }
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
};

// Runs kernel(execution) without the interpreter lock. False: stopped, and the handler's exception is set.
template <class Kernel>
bool run(int num_threads, const Kernel& kernel) {
  if (num_threads < 1) throw py::value_error("num_threads must be at least 1, got " + std::to_string(num_threads));
  Signals signals;
  const mfld_execution execution = {num_threads, &Signals::poll, &signals};
  int status;
  {
    const py::gil_scoped_release release;
    status = kernel(&execution);
  }
  if (status == MFLD_OUT_OF_MEMORY) throw std::bad_alloc();
  return status != MFLD_STOPPED;
}

template <class Kernel>
void run_or_throw(int num_threads, const Kernel& kernel) {
  if (!run(num_threads, kernel)) throw py::error_already_set();
}

struct Report {
  std::string status;
  std::int64_t steps = 0;
  std::optional<std::pair<std::int64_t, std::int64_t>> bad;
  std::vector<double> loss, gradient_norm;
  py::object exception = py::none();
};

// ---- estimators and dynamics
// --------------------------------------------------------------------------------------------------------

template <std::size_t n>
std::int32_t index_of(const std::string& kind, const char* const (&names)[n], const char* what) {
  std::string known;
  for (std::size_t i = 0; i < n; ++i) {
    if (kind == names[i]) return static_cast<std::int32_t>(i);
    known += (i ? ", " : "") + std::string(names[i]);
  }
  throw py::value_error(std::string(what) + " must be one of " + known + ", got " + kind);
}

// Arrays that a call changes in place belong to Python: held here, checked where their sizes are known.
struct Estimator {
  std::int32_t kind;
  std::int64_t batch_size, refresh_every;
  std::optional<py::array> anchor, anchor_gradient, anchor_predictions;
  bool valid;

  static Estimator make(const std::string& kind, std::int64_t batch_size, std::int64_t refresh_every,
                        std::optional<py::array> anchor, std::optional<py::array> anchor_gradient,
                        std::optional<py::array> anchor_predictions, bool valid) {
    static constexpr const char* names[] = {"full_batch", "minibatch", "svrg", "sarah"};
    return {index_of(kind, names, "kind of an estimator"),
            batch_size,
            refresh_every,
            std::move(anchor),
            std::move(anchor_gradient),
            std::move(anchor_predictions),
            valid};
  }
  bool anchored() const { return kind == MFLD_SVRG || kind == MFLD_SARAH; }
};

struct Dynamics {
  std::int32_t kind;
  double friction;
  std::optional<py::array> velocities, force;
  bool force_valid;

  static Dynamics make(const std::string& kind, double friction, std::optional<py::array> velocities,
                       std::optional<py::array> force, bool force_valid) {
    static constexpr const char* names[] = {"overdamped", "baoab"};
    return {index_of(kind, names, "kind of a dynamics"), friction, std::move(velocities), std::move(force),
            force_valid};
  }
};

void* needed(std::optional<py::array>& a, const char* name, bool want_double, std::vector<py::ssize_t> shape) {
  if (!a) throw py::value_error(std::string(name) + " is needed for this kind");
  return checked_writable(*a, name, want_double, std::move(shape));
}

// ---- one build of the kernels
// ---------------------------------------------------------------------------------------------

class Backend {
 public:
  explicit Backend(const std::string& path) {
    // Never closed: threads of the OpenMP runtime may hold addresses in it.
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) throw py::import_error(dlerror());
    const auto get = reinterpret_cast<const mfld_kernel_table_t* (*)()>(dlsym(handle, "mfld_kernel_table"));
    if (!get) throw py::import_error(path + " exports no mfld_kernel_table");
    table_ = get();
    if (table_->abi != MFLD_KERNEL_ABI)
      throw py::import_error(path + " has kernel interface " + std::to_string(table_->abi) + ", expected " +
                             std::to_string(MFLD_KERNEL_ABI));
  }

  const mfld_kernel_table_t& table() const { return *table_; }

  std::pair<py::array, py::array> activation(int id, const py::array& z) const {
    check_id(id, table_->n_activations, "activation");
    const bool wide = precision(z, "z");
    const std::vector<py::ssize_t> shape(z.shape(), z.shape() + z.ndim());
    const void* in = checked(z, "z", wide, shape);
    auto value = empty(wide, shape), slope = empty(wide, shape);
    kernels(wide).activation(id, in, z.size(), value.mutable_data(), slope.mutable_data());
    return {value, slope};
  }

  py::array neurons(const mfld_network& network, const py::array& particles, const py::array& inputs,
                    int num_threads) const {
    const bool wide = precision(particles, "particles");
    const void* x = checked(particles, "particles", wide, {-1, n_coordinates(network)});
    const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
    auto h = empty(wide, {inputs.shape(0), particles.shape(0), network.n_outputs});
    void* out = h.mutable_data();
    const auto m = particles.shape(0), n = inputs.shape(0);
    run_or_throw(num_threads,
                 [&](const mfld_execution* e) { return kernels(wide).neurons(&network, x, m, z, n, out, e); });
    return h;
  }

  py::array predict(const mfld_network& network, const py::array& particles,
                    const std::optional<py::array>& coefficients, const py::array& inputs, int num_threads) const {
    const bool wide = precision(particles, "particles");
    const void* x = checked(particles, "particles", wide, {-1, n_coordinates(network)});
    const void* c = coefficients ? checked(*coefficients, "coefficients", wide, {particles.shape(0)}) : nullptr;
    const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
    auto predictions = empty(wide, {inputs.shape(0), network.n_outputs});
    void* out = predictions.mutable_data();
    const auto m = particles.shape(0), n = inputs.shape(0);
    run_or_throw(num_threads,
                 [&](const mfld_execution* e) { return kernels(wide).predict(&network, x, c, m, z, n, out, e); });
    return predictions;
  }

  std::pair<py::array, py::array> pull_back(const mfld_network& network, const py::array& particles,
                                            const py::array& inputs, const py::array& cotangent,
                                            int num_threads) const {
    const bool wide = precision(particles, "particles");
    const auto p = n_coordinates(network);
    const void* x = checked(particles, "particles", wide, {-1, p});
    const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
    const void* g = checked(cotangent, "cotangent", wide, {inputs.shape(0), network.n_outputs});
    const auto m = particles.shape(0), n = inputs.shape(0);
    auto values = empty(wide, {m}), gradient = empty(wide, {m, p});
    void *v = values.mutable_data(), *d = gradient.mutable_data();
    run_or_throw(num_threads,
                 [&](const mfld_execution* e) { return kernels(wide).pull_back(&network, x, m, z, n, g, v, d, e); });
    return {values, gradient};
  }

  double loss_smoothness(const mfld_loss& loss) const {
    check_id(loss.id, table_->n_losses, "loss");
    return table_->loss_smoothness(&loss);
  }

  std::pair<py::array, py::array> evaluate_loss(const mfld_loss& loss, const py::array& predictions,
                                                const py::array& targets) const {
    const bool wide = precision(predictions, "predictions");
    const void* u = checked(predictions, "predictions", wide, {-1, -1});
    const auto n = predictions.shape(0), k = predictions.shape(1);
    const void* y = checked(targets, "targets", wide, {n, target_width(loss, k)});
    auto value = empty(wide, {n}), derivative = empty(wide, {n, k});
    run_or_throw(1, [&, v = value.mutable_data(), d = derivative.mutable_data()](const mfld_execution*) {
      return kernels(wide).loss(&loss, u, y, n, k, v, d);
    });
    return {value, derivative};
  }

  py::array conjugate(const mfld_loss& loss, const py::array& dual, const py::array& targets) const {
    const bool wide = precision(dual, "dual");
    const void* g = checked(dual, "dual", wide, {-1, -1});
    const auto n = dual.shape(0), k = dual.shape(1);
    const void* y = checked(targets, "targets", wide, {n, target_width(loss, k)});
    auto value = empty(wide, {n});
    run_or_throw(1, [&, v = value.mutable_data()](const mfld_execution*) {
      return kernels(wide).conjugate(&loss, g, y, n, k, v);
    });
    return value;
  }

  std::int64_t move(py::array& particles, const py::array& gradient, std::int64_t n_moving, double step_size,
                    double temperature, double l2, std::uint64_t key, std::uint64_t step, std::uint32_t population,
                    int num_threads) const {
    const bool wide = precision(particles, "particles");
    void* x = checked_writable(particles, "particles", wide, {-1, -1});
    const auto m = particles.shape(0), p = particles.shape(1);
    const void* g = checked(gradient, "gradient", wide, {m, p});
    check_moving(n_moving, p);
    const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
    const mfld_noise noise = {key, step, population};
    std::int64_t bad = -1;
    run_or_throw(num_threads, [&](const mfld_execution* e) {
      return kernels(wide).move(x, g, m, p, n_moving, &schedule, &noise, &bad, e);
    });
    return bad;
  }

  std::int64_t baoab(py::array& particles, py::array& velocities, const py::array& gradient, bool closing,
                     std::int64_t n_moving, double step_size, double temperature, double l2, double friction,
                     std::uint64_t key, std::uint64_t step, std::uint32_t population, int num_threads) const {
    const bool wide = precision(particles, "particles");
    void* x = checked_writable(particles, "particles", wide, {-1, -1});
    const auto m = particles.shape(0), p = particles.shape(1);
    void* v = checked_writable(velocities, "velocities", wide, {m, p});
    const void* g = checked(gradient, "gradient", wide, {m, p});
    check_moving(n_moving, p);
    const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
    const mfld_noise noise = {key, step, population};
    std::int64_t bad = -1;
    run_or_throw(num_threads, [&](const mfld_execution* e) {
      return kernels(wide).baoab(x, v, g, m, p, n_moving, closing ? MFLD_BAOAB_CLOSE : MFLD_BAOAB_OPEN, friction,
                                 &schedule, &noise, &bad, e);
    });
    return bad;
  }

  std::int64_t mala_accept(py::array& particles, py::array& values, py::array& gradient, const py::array& proposals,
                           const py::array& proposal_values, const py::array& proposal_gradient, std::int64_t n_moving,
                           double step_size, double temperature, double l2, std::uint64_t key, std::uint64_t step,
                           std::uint32_t population, int num_threads) const {
    const bool wide = precision(particles, "particles");
    void* x = checked_writable(particles, "particles", wide, {-1, -1});
    const auto m = particles.shape(0), p = particles.shape(1);
    void* u = checked_writable(values, "values", wide, {m});
    void* g = checked_writable(gradient, "gradient", wide, {m, p});
    const void* y = checked(proposals, "proposals", wide, {m, p});
    const void* w = checked(proposal_values, "proposal_values", wide, {m});
    const void* c = checked(proposal_gradient, "proposal_gradient", wide, {m, p});
    check_moving(n_moving, p);
    if (!(temperature > 0)) throw py::value_error("temperature must be positive, got " + std::to_string(temperature));
    const mfld_schedule schedule = {&step_size, &temperature, &l2, 0};
    const mfld_noise noise = {key, step, population};
    std::int64_t accepted = 0;
    run_or_throw(num_threads, [&](const mfld_execution* e) {
      return kernels(wide).mala_accept(x, u, g, y, w, c, m, p, n_moving, &schedule, &noise, &accepted, e);
    });
    return accepted;
  }

  py::array pull_back_rows(const mfld_network& network, const py::array& particles, const py::array& inputs,
                           const py::array& cotangent, const py::array_t<std::int64_t>& rows, int num_threads) const {
    const bool wide = precision(particles, "particles");
    const auto p = n_coordinates(network);
    const void* x = checked(particles, "particles", wide, {-1, p});
    const void* z = checked(inputs, "inputs", wide, {-1, network.n_features});
    const void* g = checked(cotangent, "cotangent", wide, {inputs.shape(0), network.n_outputs});
    const auto m = particles.shape(0), n = inputs.shape(0);
    if (rows.ndim() != 2 || rows.shape(0) != m || !(rows.flags() & py::array::c_style))
      throw py::value_error("rows must be a contiguous array of shape (n_particles, batch_size)");
    const std::int64_t* r = rows.data();
    for (py::ssize_t i = 0; i < rows.size(); ++i)
      if (r[i] < 0 || r[i] >= n)
        throw py::value_error("rows must be between 0 and " + std::to_string(n - 1) + ", got " + std::to_string(r[i]));
    const auto batch_size = rows.shape(1);
    auto gradient = empty(wide, {m, p});
    void* d = gradient.mutable_data();
    run_or_throw(num_threads, [&](const mfld_execution* e) {
      return kernels(wide).pull_back_rows(&network, x, m, z, g, r, batch_size, d, e);
    });
    return gradient;
  }

  py::array normals(std::uint64_t key, std::uint64_t step, std::int64_t n_particles, std::int64_t n_coordinates,
                    const py::dtype& dtype, std::uint32_t stream, std::uint32_t population, int num_threads) const {
    const bool wide = dtype.equal(py::dtype::of<double>());
    if (!wide && !dtype.equal(py::dtype::of<float>())) throw py::type_error("dtype must be float32 or float64");
    if (n_particles < 0 || n_coordinates < 0)
      throw py::value_error("n_particles and n_coordinates must not be negative");
    auto out = empty(wide, {n_particles, n_coordinates});
    const mfld_noise noise = {key, step, population};
    run_or_throw(num_threads, [&, to = out.mutable_data()](const mfld_execution* e) {
      return kernels(wide).normals(&noise, stream, n_particles, n_coordinates, to, e);
    });
    return out;
  }

  Report advance(const mfld_network& network, const mfld_loss& loss, py::array& particles, const py::array& inputs,
                 const py::array& targets, const std::optional<py::array>& weights, Estimator& estimator,
                 Dynamics& dynamics, const py::array& step_size, const py::array& temperature, const py::array& l2,
                 std::int64_t n_steps, const std::vector<std::uint64_t>& keys, std::uint64_t step,
                 std::uint32_t population, int num_threads) const {
    const bool wide = precision(particles, "particles");
    const auto p = n_coordinates(network);
    void* x = checked_writable(particles, "particles", wide, {-1, -1, p});
    const auto r = particles.shape(0), m = particles.shape(1), n = inputs.ndim() == 2 ? inputs.shape(0) : 0;
    const mfld_samples samples = {checked(inputs, "inputs", wide, {-1, network.n_features}),
                                  checked(targets, "targets", wide, {n, target_width(loss, network.n_outputs)}),
                                  weights ? checked(*weights, "weights", wide, {n}) : nullptr, n};
    if (r < 1 || m < 1 || n < 1) throw py::value_error("advance needs at least one particle and one sample");
    if (static_cast<py::ssize_t>(keys.size()) != r)
      throw py::value_error("keys must have length " + std::to_string(r) + ", the number of replicates, got " +
                            std::to_string(keys.size()));
    if (n_steps < 1) throw py::value_error("n_steps must be at least 1, got " + std::to_string(n_steps));
    const bool batches = estimator.kind != MFLD_FULL_BATCH;
    if (estimator.batch_size < (batches ? 1 : 0) || estimator.batch_size > (batches ? n : 0))
      throw py::value_error("batch_size must be between 1 and " + std::to_string(n) +
                            ", or 0 for the full batch, got " + std::to_string(estimator.batch_size));
    if (estimator.anchored() && estimator.refresh_every < 1)
      throw py::value_error("refresh_every must be at least 1, got " + std::to_string(estimator.refresh_every));
    const auto length = temperature.ndim() == 1 ? temperature.shape(0) : -1;
    if (length != 1 && length != n_steps) throw py::value_error("temperature must have length 1 or n_steps");
    const auto rows = step_size.ndim() == 2 && step_size.shape(0) == 1 ? 1 : r;  // one for all, or one for each
    const auto* h = static_cast<const double*>(checked(step_size, "step_size", true, {rows, length}));
    const auto* t = static_cast<const double*>(checked(temperature, "temperature", true, {length}));
    const auto* ridge = static_cast<const double*>(checked(l2, "l2", true, {length}));
    std::vector<mfld_schedule> schedules;
    std::vector<mfld_noise> noises;
    for (py::ssize_t i = 0; i < r; ++i) {
      schedules.push_back({h + (rows == 1 ? 0 : i * length), t, ridge, length == 1 ? 0 : 1});
      noises.push_back({keys[i], step, population});
    }
    mfld_estimator e = {estimator.kind, estimator.batch_size, estimator.refresh_every, nullptr, nullptr, nullptr, 0};
    if (estimator.anchored()) {
      e.anchor = needed(estimator.anchor, "anchor", wide, {r, m, p});
      e.anchor_gradient = needed(estimator.anchor_gradient, "anchor_gradient", wide, {r, m, p});
      e.valid = estimator.valid;
    }
    if (estimator.kind == MFLD_SVRG)
      e.anchor_predictions =
          needed(estimator.anchor_predictions, "anchor_predictions", wide, {r, n, network.n_outputs});
    mfld_dynamics d = {dynamics.kind, dynamics.friction, nullptr, nullptr, 0};
    if (dynamics.kind == MFLD_BAOAB) {
      d.velocities = needed(dynamics.velocities, "velocities", wide, {r, m, p});
      d.force = needed(dynamics.force, "force", wide, {r, m, p});
      d.force_valid = dynamics.force_valid;
    }
    Report report;
    report.loss.resize(keys.size());
    report.gradient_norm.resize(keys.size());
    mfld_report raw = {0, 0, -1, -1, report.loss.data(), report.gradient_norm.data()};
    const bool finished = run(num_threads, [&](const mfld_execution* execution) {
      return kernels(wide).advance(&network, &loss, &samples, x, r, m, n_steps, &e, &d, schedules.data(), noises.data(),
                                   &raw, execution);
    });
    estimator.valid = e.valid != 0;
    dynamics.force_valid = d.force_valid != 0;
    report.steps = raw.steps;
    if (raw.status == MFLD_DIVERGED) report.bad = {raw.bad_replicate, raw.bad_particle};
    report.status = report.bad ? "diverged" : !finished ? "stopped" : "done";
    if (!finished) {
      // Handed over rather than raised: the caller first saves the state that the steps so far led to.
      py::error_already_set error;
      report.exception = error.value();
      if (error.trace()) PyException_SetTraceback(report.exception.ptr(), error.trace().ptr());
    }
    return report;
  }

  py::array_t<std::int64_t> batch(std::uint64_t key, std::uint64_t step, std::int64_t n, std::int64_t batch_size,
                                  std::uint32_t population) const {
    if (batch_size < 1 || batch_size > n)
      throw py::value_error("batch_size must be between 1 and " + std::to_string(n) + ", got " +
                            std::to_string(batch_size));
    py::array_t<std::int64_t> rows(batch_size);
    const mfld_noise noise = {key, step, population};
    run_or_throw(
        1, [&, to = rows.mutable_data()](const mfld_execution*) { return table_->batch(&noise, n, batch_size, to); });
    return rows;
  }

  py::array_t<std::int64_t> particle_batches(std::uint64_t key, std::uint64_t step, std::int64_t n,
                                             std::int64_t batch_size, std::int64_t n_particles,
                                             std::uint32_t population, int num_threads) const {
    if (batch_size < 1 || batch_size > n || batch_size >= 1 << 24)
      throw py::value_error("batch_size must be between 1 and " +
                            std::to_string(std::min<std::int64_t>(n, (1 << 24) - 1)) + ", got " +
                            std::to_string(batch_size));
    if (n_particles < 0) throw py::value_error("n_particles must not be negative");
    py::array_t<std::int64_t> rows({n_particles, batch_size});
    const mfld_noise noise = {key, step, population};
    run_or_throw(num_threads, [&, to = rows.mutable_data()](const mfld_execution* e) {
      return table_->particle_batches(&noise, n, batch_size, n_particles, to, e);
    });
    return rows;
  }

  std::int64_t dual_sweep(const mfld_network& network, const mfld_loss& loss, const py::array& particles,
                          const py::array& inputs, const py::array& targets, const std::optional<py::array>& weights,
                          const py::array_t<std::int64_t, py::array::c_style>& rows,
                          const py::array_t<std::int64_t, py::array::c_style>& groups, double temperature,
                          double variance_bound, double neuron_bound, double effective_sample_size,
                          py::array& log_weights, py::array& dual, int num_threads) const {
    const bool wide = precision(particles, "particles");
    const void* x = checked(particles, "particles", wide, {-1, n_coordinates(network)});
    const auto m = particles.shape(0), n = inputs.ndim() == 2 ? inputs.shape(0) : 0;
    const mfld_samples samples = {checked(inputs, "inputs", wide, {-1, network.n_features}),
                                  checked(targets, "targets", wide, {n, target_width(loss, network.n_outputs)}),
                                  weights ? checked(*weights, "weights", wide, {n}) : nullptr, n};
    const std::int64_t* size = groups.data();
    std::int64_t members = 0;
    for (py::ssize_t g = 0; g < groups.size(); ++g) {
      if (size[g] < 1) throw py::value_error("groups must hold positive sizes");
      members += size[g];
    }
    if (members != m || m < 1) throw py::value_error("groups must have the number of particles as their sum");
    for (py::ssize_t i = 0; i < rows.size(); ++i)
      if (rows.data()[i] < 0 || rows.data()[i] >= n) throw py::value_error("rows must be rows of the inputs");
    mfld_dual_sweep sweep = {rows.data(),
                             rows.size(),
                             size,
                             groups.size(),
                             temperature,
                             variance_bound,
                             neuron_bound,
                             effective_sample_size,
                             static_cast<double*>(checked_writable(log_weights, "log_weights", true, {m})),
                             static_cast<double*>(checked_writable(dual, "dual", true, {n, network.n_outputs})),
                             0};
    run_or_throw(num_threads, [&](const mfld_execution* e) {
      return kernels(wide).dual_sweep(&network, &loss, &samples, x, m, &sweep, e);
    });
    return sweep.rows_done;
  }

  py::array dual_step(const mfld_loss& loss, const py::array& dual, const py::array& predictions,
                      const py::array& targets, const py::array& step) const {
    const auto* g = static_cast<const double*>(checked(dual, "dual", true, {-1, -1}));
    const auto n = dual.shape(0), k = dual.shape(1);
    const auto* u = static_cast<const double*>(checked(predictions, "predictions", true, {n, k}));
    const auto* y = static_cast<const double*>(checked(targets, "targets", true, {n, target_width(loss, k)}));
    const auto* a = static_cast<const double*>(checked(step, "step", true, {n}));
    auto stepped = empty(true, {n, k});
    auto* out = static_cast<double*>(stepped.mutable_data());
    std::copy_n(g, n * k, out);
    run_or_throw(1, [&](const mfld_execution*) { return table_->dual_step(&loss, out, u, y, a, n, k); });
    return stepped;
  }

 private:
  static void check_moving(std::int64_t n_moving, py::ssize_t p) {
    if (n_moving < 0 || n_moving > p)
      throw py::value_error("n_moving must be between 0 and " + std::to_string(p) + ", got " +
                            std::to_string(n_moving));
  }

  const mfld_kernels& kernels(bool wide) const { return wide ? table_->f64 : table_->f32; }

  // Also where a network first comes in: what it names must exist in this build.
  std::int64_t n_coordinates(const mfld_network& network) const {
    if (network.n_features < 1 || network.n_outputs < 1)
      throw py::value_error("a network needs at least one feature and one output");
    check_id(network.activation, table_->n_activations, "activation");
    check_id(network.readout, table_->n_readouts, "readout");
    return network.n_features + (network.has_bias ? 1 : 0) +
           (table_->readouts[network.readout].has_coordinates ? network.n_outputs : 0);
  }

  py::ssize_t target_width(const mfld_loss& loss, py::ssize_t n_outputs) const {
    check_id(loss.id, table_->n_losses, "loss");
    return table_->losses[loss.id].targets == MFLD_TARGETS_CLASS ? 1 : n_outputs;
  }

  static void check_id(int id, int count, const char* name) {
    if (id < 0 || id >= count)
      throw py::value_error(std::string(name) + " must be an index below " + std::to_string(count) + ", got " +
                            std::to_string(id));
  }

  const mfld_kernel_table_t* table_ = nullptr;
};

using Words4 = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>;

}  // namespace

PYBIND11_MODULE(_binding, m, py::mod_gil_not_used()) {
  m.doc() = "NumPy arrays in, kernel calls out. Internal: the public interface is the package mfld.";
  m.attr("__version__") = MFLD_VERSION;
  m.attr("STREAM_INIT") = static_cast<int>(MFLD_STREAM_INIT);
  m.attr("STREAM_MOVE") = static_cast<int>(MFLD_STREAM_MOVE);
  m.attr("STREAM_BATCH") = static_cast<int>(MFLD_STREAM_BATCH);
  m.attr("STREAM_ACCEPTANCE") = static_cast<int>(MFLD_STREAM_ACCEPTANCE);
  m.attr("STREAM_LABEL_NOISE") = static_cast<int>(MFLD_STREAM_LABEL_NOISE);
  m.attr("STREAM_COORDINATE_ORDER") = static_cast<int>(MFLD_STREAM_COORDINATE_ORDER);
  m.attr("STREAM_SMOOTHING") = static_cast<int>(MFLD_STREAM_SMOOTHING);
  m.def("cpu_runs", &cpu_runs, py::arg("level"), "Whether this processor and operating system run code of a level.");

  py::class_<mfld_network>(m, "Network", "A two-layer network as the kernels see it; alternatives by their index.")
      .def(py::init([](std::int64_t n_features, std::int64_t n_outputs, bool has_bias, int activation, int readout,
                       double output_scale, double readout_bound) {
             return mfld_network{n_features, n_outputs, has_bias, activation, readout, output_scale, readout_bound};
           }),
           py::arg("n_features"), py::arg("n_outputs"), py::arg("has_bias"), py::arg("activation"), py::arg("readout"),
           py::arg("output_scale"), py::arg("readout_bound"));
  py::class_<mfld_loss>(m, "Loss", "A loss as the kernels see it, by its index.")
      .def(py::init([](int id, double parameter) { return mfld_loss{id, parameter}; }), py::arg("id"),
           py::arg("parameter"));

  py::class_<Estimator>(m, "Estimator", "How gradients are estimated; its buffers are changed in place.")
      .def(py::init(&Estimator::make), py::arg("kind"), py::arg("batch_size") = 0, py::arg("refresh_every") = 0,
           py::arg("anchor").none(true) = py::none(), py::arg("anchor_gradient").none(true) = py::none(),
           py::arg("anchor_predictions").none(true) = py::none(), py::arg("valid") = false)
      .def_readonly("valid", &Estimator::valid, "whether the buffers hold what the next step needs");
  py::class_<Dynamics>(m, "Dynamics", "How steps move particles; its buffers are changed in place.")
      .def(py::init(&Dynamics::make), py::arg("kind"), py::arg("friction") = 0.0,
           py::arg("velocities").none(true) = py::none(), py::arg("force").none(true) = py::none(),
           py::arg("force_valid") = false)
      .def_readonly("valid", &Dynamics::force_valid, "whether force is the gradient at the particles");

  py::class_<Report>(m, "Report", "How a native run of steps ended.")
      .def_readonly("status", &Report::status, "'done', 'stopped' or 'diverged'")
      .def_readonly("steps", &Report::steps, "whole steps, made by all replicates")
      .def_readonly("bad", &Report::bad, "replicate and particle that the next step makes not finite first, or None")
      .def_readonly("loss", &Report::loss,
                    "weighted mean loss over the rows of the last gradient, of each replicate, when done")
      .def_readonly("gradient_norm", &Report::gradient_norm,
                    "root mean square over particles of |b|, by the last gradient, of each replicate, when done")
      .def_readonly("exception", &Report::exception, "what a signal handler raised, when stopped");

  py::class_<Backend>(m, "Backend", "The kernels of one instruction-set level.")
      .def(py::init<const std::string&>(), py::arg("path"))
      .def_property_readonly("isa", [](const Backend& b) { return std::string(b.table().isa); })
      .def_property_readonly("compiler", [](const Backend& b) { return std::string(b.table().compiler); })
      .def_property_readonly("eigen", [](const Backend& b) { return std::string(b.table().eigen); })
      .def_property_readonly("has_openmp", [](const Backend& b) { return b.table().has_openmp != 0; })
      .def_property_readonly("activations",
                             [](const Backend& b) {
                               const auto* names = b.table().activation_names;
                               return std::vector<std::string>(names, names + b.table().n_activations);
                             })
      .def_property_readonly(
          "activation_bounds",
          [](const Backend& b) {
            std::vector<std::tuple<double, double, double>> out;
            for (int i = 0; i < b.table().n_activations; ++i) {
              const auto& bounds = b.table().activation_bounds[i];
              out.emplace_back(bounds.lowest, bounds.highest, bounds.steepest);
            }
            return out;
          },
          "(lowest, highest, largest slope in size) of each")
      .def_property_readonly(
          "readouts",
          [](const Backend& b) {
            std::vector<std::tuple<std::string, bool, bool>> out;
            for (int i = 0; i < b.table().n_readouts; ++i) {
              const auto& r = b.table().readouts[i];
              out.emplace_back(r.name, r.has_coordinates != 0, r.frozen != 0);
            }
            return out;
          },
          "(name, has coordinates, frozen) of each")
      .def_property_readonly(
          "losses",
          [](const Backend& b) {
            static constexpr const char* kinds[] = {"real", "sign", "class"};
            std::vector<std::tuple<std::string, std::optional<std::string>, double, std::string, bool>> out;
            for (int i = 0; i < b.table().n_losses; ++i) {
              const auto& l = b.table().losses[i];
              out.emplace_back(l.name, l.parameter ? std::optional<std::string>(l.parameter) : std::nullopt,
                               l.parameter_default, kinds[l.targets], l.convex != 0);
            }
            return out;
          },
          "(name, parameter, its default, kind of targets, convex) of each")
      .def("max_threads", [](const Backend& b) { return b.table().max_threads(); })
      .def("pause", [](const Backend& b) { return b.table().pause(); })
      .def("loss_smoothness", &Backend::loss_smoothness, py::arg("loss"))
      .def("activation", &Backend::activation, py::arg("activation"), py::arg("z"))
      .def("neurons", &Backend::neurons, py::arg("network"), py::arg("particles"), py::arg("inputs"),
           py::arg("num_threads") = 1)
      .def("predict", &Backend::predict, py::arg("network"), py::arg("particles"), py::arg("coefficients").none(true),
           py::arg("inputs"), py::arg("num_threads") = 1)
      .def("pull_back", &Backend::pull_back, py::arg("network"), py::arg("particles"), py::arg("inputs"),
           py::arg("cotangent"), py::arg("num_threads") = 1)
      .def("loss", &Backend::evaluate_loss, py::arg("loss"), py::arg("predictions"), py::arg("targets"))
      .def("conjugate", &Backend::conjugate, py::arg("loss"), py::arg("dual"), py::arg("targets"))
      .def("move", &Backend::move, py::arg("particles"), py::arg("gradient"), py::arg("n_moving"), py::arg("step_size"),
           py::arg("temperature"), py::arg("l2"), py::arg("key"), py::arg("step"), py::arg("population") = 0,
           py::arg("num_threads") = 1)
      .def("baoab", &Backend::baoab, py::arg("particles"), py::arg("velocities"), py::arg("gradient"),
           py::arg("closing"), py::arg("n_moving"), py::arg("step_size"), py::arg("temperature"), py::arg("l2"),
           py::arg("friction"), py::arg("key"), py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1)
      .def("mala_accept", &Backend::mala_accept, py::arg("particles"), py::arg("values"), py::arg("gradient"),
           py::arg("proposals"), py::arg("proposal_values"), py::arg("proposal_gradient"), py::arg("n_moving"),
           py::arg("step_size"), py::arg("temperature"), py::arg("l2"), py::arg("key"), py::arg("step"),
           py::arg("population") = 0, py::arg("num_threads") = 1)
      .def("pull_back_rows", &Backend::pull_back_rows, py::arg("network"), py::arg("particles"), py::arg("inputs"),
           py::arg("cotangent"), py::arg("rows"), py::arg("num_threads") = 1)
      .def("normals", &Backend::normals, py::arg("key"), py::arg("step"), py::arg("n_particles"),
           py::arg("n_coordinates"), py::arg("dtype"), py::arg("stream") = static_cast<int>(MFLD_STREAM_MOVE),
           py::arg("population") = 0, py::arg("num_threads") = 1)
      .def("advance", &Backend::advance, py::arg("network"), py::arg("loss"), py::arg("particles"), py::arg("inputs"),
           py::arg("targets"), py::arg("weights").none(true), py::arg("estimator"), py::arg("dynamics"),
           py::arg("step_size"), py::arg("temperature"), py::arg("l2"), py::arg("n_steps"), py::arg("keys"),
           py::arg("step"), py::arg("population") = 0, py::arg("num_threads") = 1)
      .def(
          "philox",
          [](const Backend& b, const Words4& counter, const std::pair<std::uint32_t, std::uint32_t>& key) {
            const std::uint32_t c[4] = {std::get<0>(counter), std::get<1>(counter), std::get<2>(counter),
                                        std::get<3>(counter)};
            const std::uint32_t k[2] = {key.first, key.second};
            std::uint32_t out[4];
            b.table().philox(c, k, out);
            return Words4(out[0], out[1], out[2], out[3]);
          },
          py::arg("counter"), py::arg("key"))
      .def(
          "noise_key",
          [](const Backend& b, std::uint64_t seed, std::uint64_t replica) {
            return b.table().noise_key(seed, replica);
          },
          py::arg("seed"), py::arg("replica") = 0)
      .def("batch", &Backend::batch, py::arg("key"), py::arg("step"), py::arg("n"), py::arg("batch_size"),
           py::arg("population") = 0)
      .def("particle_batches", &Backend::particle_batches, py::arg("key"), py::arg("step"), py::arg("n"),
           py::arg("batch_size"), py::arg("n_particles"), py::arg("population") = 0, py::arg("num_threads") = 1)
      .def("dual_sweep", &Backend::dual_sweep, py::arg("network"), py::arg("loss"), py::arg("particles"),
           py::arg("inputs"), py::arg("targets"), py::arg("weights").none(true), py::arg("rows"), py::arg("groups"),
           py::arg("temperature"), py::arg("variance_bound"), py::arg("neuron_bound"), py::arg("effective_sample_size"),
           py::arg("log_weights"), py::arg("dual"), py::arg("num_threads") = 1)
      .def("dual_step", &Backend::dual_step, py::arg("loss"), py::arg("dual"), py::arg("predictions"),
           py::arg("targets"), py::arg("step"));
}
