# CUDA is an optional language of the same project. A GPU is never asked for: what is built depends
# on the compiler that is found, not on the machine's devices.
set(VF_CUDA_VERSION "")
set(VF_CUDA_ARCHS "")

if(NOT VAE_FAST_CUDA MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "VAE_FAST_CUDA must be auto, on or off; it is '${VAE_FAST_CUDA}'")
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cu)
if(VAE_FAST_CUDA STREQUAL "off" OR VF_BUILD_TESTS OR VF_SANITIZE)
  message(STATUS "CUDA: off")
  return()
endif()
if(NOT cuda_sources)
  if(VAE_FAST_CUDA STREQUAL "on")
    message(FATAL_ERROR "VAE_FAST_CUDA=on, but this version of vae_fast has no CUDA kernels "
                        "(csrc/cuda/*.cu). Use VAE_FAST_CUDA=auto or off.")
  endif()
  message(STATUS "CUDA: skipped, this version has no CUDA kernels")
  return()
endif()

# CMake looks for nvcc in CUDACXX and on PATH; a toolkit in its usual places counts as found too.
# What an earlier run of this build folder did not find is looked for again.
if(NOT CMAKE_CUDA_COMPILER)
  unset(CMAKE_CUDA_COMPILER CACHE)
  find_program(VF_NVCC nvcc
               HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(VF_NVCC AND "$ENV{CUDACXX}" STREQUAL "")
    set(ENV{CUDACXX} ${VF_NVCC})
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(VAE_FAST_CUDA STREQUAL "on")
    message(FATAL_ERROR "VAE_FAST_CUDA=on, but no working CUDA compiler was found. Put nvcc on "
                        "PATH, set CUDA_HOME, or name it in CUDACXX; or use VAE_FAST_CUDA=auto or "
                        "off.")
  endif()
  message(STATUS "CUDA: skipped, no working CUDA compiler was found (nvcc on PATH, CUDA_HOME, "
                 "CUDACXX)")
  return()
endif()

# Machine code for each architecture that this compiler knows, and PTX of the newest, which later
# GPUs compile for themselves. CUDAARCHS (CMake's own variable) replaces the list.
if(NOT CMAKE_CUDA_ARCHITECTURES AND "$ENV{CUDAARCHS}" STREQUAL "")
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)
  set(archs "")
  foreach(arch 75 80 86 89 90 100 120)
    if(NOT known OR known MATCHES "compute_${arch}[^0-9]")
      list(APPEND archs ${arch})
    endif()
  endforeach()
  list(POP_BACK archs newest)
  list(TRANSFORM archs APPEND "-real")
  set(CMAKE_CUDA_ARCHITECTURES ${archs} ${newest} CACHE STRING "CUDA architectures")
endif()

enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(VF_CUDA_VERSION ${CMAKE_CUDA_COMPILER_VERSION})
# native, all and all-major stand for lists that CMake has made.
set(archs ${CMAKE_CUDA_ARCHITECTURES})
if(archs MATCHES "^[a-z-]+$")
  string(TOUPPER ${archs} special)
  string(REPLACE "-" "_" special ${special})
  set(archs ${CMAKE_CUDA_ARCHITECTURES_${special}})
  if(NOT archs MATCHES "^[0-9]")
    message(FATAL_ERROR "CUDAARCHS=${CMAKE_CUDA_ARCHITECTURES} names no architecture here. Name "
                        "them: CUDAARCHS=\"80;90\".")
  endif()
endif()
string(REPLACE ";" " " VF_CUDA_ARCHS "${archs}")
message(STATUS "CUDA: ${VF_CUDA_VERSION}, architectures ${VF_CUDA_ARCHS}")

add_library(vf_cuda OBJECT ${cuda_sources})
target_link_libraries(vf_cuda PRIVATE vf_options)
target_compile_options(vf_cuda PRIVATE -Xcompiler=-Wall,-Wextra)
# Half the module's size, for a little time when it is loaded.
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  target_compile_options(vf_cuda PRIVATE --compress-mode=size)
endif()
# The runtime is linked in, and looks for the driver when it is first used: the module loads on a
# machine that has neither.
target_link_libraries(vf_kernels INTERFACE $<TARGET_OBJECTS:vf_cuda> CUDA::cudart_static)
target_compile_definitions(vf_kernels INTERFACE VF_HAVE_CUDA)
